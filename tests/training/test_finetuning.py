"""A training that starts from the weights of a model: its own run, resumed to equal weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import RunRecord, TrainedModel, UNet
from ddpm_kedro.parameters import ModelParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.run import Run
from ddpm_kedro.training.trainer import Trainer
from tests.conftest import DIFFUSION, MODEL, NO_AUGMENTATION, OPTIMIZER, TRAINING, changed, make_store, randomise
from tests.training.test_loop import run_training, same, weights


def initial(
    model: ModelParameters = MODEL, channels: int = 1, classes: int = 3, size: int = 8, scale: float = 0.1
) -> TrainedModel:
    groups = {"model": model.model_dump(mode="json"), "diffusion": DIFFUSION.model_dump(mode="json")}
    names = tuple(str(index) for index in range(classes))
    network = randomise(UNet(model, channels, classes), scale).eval()
    return TrainedModel(network, RunRecord(Provenance(groups, {"imported": "x"}), (channels, size, size), names), 0)


def run_from(start: TrainedModel | None, store: ImageStore, **groups: dict[str, Any]) -> Run:
    bases = {"model": MODEL, "diffusion": DIFFUSION, "optimizer": OPTIMIZER, "training": TRAINING}
    parameters = {name: changed(base, **groups.get(name, {})) for name, base in bases.items()}
    return Run.of(AugmentedImages(store, NO_AUGMENTATION), **parameters, initial_model=start)


def test_a_tiny_learning_rate_keeps_the_initial_loss(store: ImageStore) -> None:
    start = initial()
    run = run_from(start, store, optimizer={"lr": 1e-12})
    trainer = Trainer(run, AugmentedImages(store, NO_AUGMENTATION), store, choose_hardware("cpu", "fp32"))
    trainer.ema.load_state_dict(start.network.state_dict())
    expected = trainer.validation_loss()
    reports = run_training(run, store)
    assert [row["validation_loss"] for row in reports[-1].history] == pytest.approx([expected] * 2, rel=1e-6)
    from_random = run_training(run_from(None, store, optimizer={"lr": 1e-12}), store)[-1].history[0]
    assert abs(from_random["validation_loss"] - expected) > 0.01
    assert reports[-1].checkpoint is not None
    for states in (reports[-1].checkpoint.network, reports[-1].checkpoint.ema):
        for name, tensor in start.network.state_dict().items():
            torch.testing.assert_close(states[name], tensor)


def test_the_initial_model_is_not_changed(store: ImageStore) -> None:
    start = initial()
    before = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    assert not same(weights(run_training(run_from(start, store), store)), before)
    assert same(start.network.state_dict(), before)


def test_a_stopped_fine_tuning_resumes_to_equal_weights(store: ImageStore) -> None:
    run = run_from(initial(), store)
    whole = weights(run_training(run, store))
    stopped = run_training(run, store, stop_at=3)[-1].checkpoint
    assert stopped is not None
    assert stopped.images_seen == 24
    assert stopped.record.made_by.inputs["initial_model"] == run.initial_model
    assert same(weights(run_training(run_from(initial(), store), store, resume=stopped)), whole)
    assert not same(weights(run_training(run_from(None, store), store)), whole)


def test_run_ids_follow_the_weights_of_the_initial_model_and_not_its_path(store: ImageStore) -> None:
    runs = [run_from(start, store) for start in (None, initial(), initial(scale=0.2))]
    assert len({run.run_id for run in runs}) == 3
    path = run_from(initial(), store, training={"initial_model": "elsewhere"})
    assert path.run_id == runs[1].run_id
    record = replace(initial().record, class_names=("a", "b", "c"))
    renamed = replace(initial(), record=record, images_seen=7)
    assert run_from(renamed, store).run_id == runs[1].run_id


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (initial(changed(MODEL, width=16)), ["There: model.width: 8 → 16. Take over"]),
        (initial(changed(MODEL, channel_multipliers=[1, 2, 2])), ["channel_multipliers: [1, 2] → [1, 2, 2]"]),
        (initial(changed(MODEL, norm_eps=1e-6)), ["model.norm_eps: 1e-05 → 1e-06"]),
        (initial(channels=3), ["image shape: (1, 8, 8) → (3, 8, 8)"]),
        (initial(size=16), ["image shape: (1, 8, 8) → (1, 16, 16)"]),
        (initial(classes=0), ["There: classes: 3 → 0. Take over", "model.class_conditional=false"]),
        (initial(changed(MODEL, width=16), classes=5), ["model.width: 8 → 16", "classes: 3 → 5"]),
    ],
)
def test_an_initial_model_with_another_network_is_rejected_with_the_differences(
    start: TrainedModel, words: list[str], store: ImageStore
) -> None:
    with pytest.raises(UserError) as error:
        run_from(start, store)
    for word in [*words, "training.initial_model", "Take over its model parameters"]:
        assert word in str(error.value)


def test_an_initial_model_may_differ_in_dropout_and_class_names() -> None:
    run = run_from(initial(changed(MODEL, dropout=0.1)), make_store(), model={"dropout": 0.2})
    assert run.class_names == ("class 0", "class 1", "class 2")
