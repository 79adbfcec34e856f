"""Training with non-leaking augmentation: samples show none of it, and the exported model knows nothing of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.images.non_leaking import LABELS
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel, UNet, to_diffusers
from ddpm_kedro.pipelines.model_training.nodes import augment_images, export_model
from ddpm_kedro.training.run import Checkpoint, Run
from ddpm_kedro.training.trainer import Batch, Trainer
from tests.conftest import MADE_BY, MODEL, NO_AUGMENTATION, TRAINING, changed, make_store, randomise
from tests.training.test_finetuning import initial, run_from
from tests.training.test_loop import make_run, run_training, same, weights
from tests.training.test_step import make_trainer

AUGMENTED = {"augmentation": {"non_leaking": 0.2}}
EMBEDDING = "augmentation_embedding.weight"


def bars() -> ImageStore:
    """Return dark images with a bright bar at the same place, upper left of the centre."""
    images = np.full((64, 8, 8, 1), 40, dtype=np.uint8)
    images[:, 1:4, 2:4] = 230
    images += np.random.default_rng(0).integers(0, 20, (64, 1, 1, 1)).astype(np.uint8)
    return ImageStore(images, None, (), MADE_BY)


def places(images: Tensor) -> Tensor:
    """Return the centres of the bright pixels of images (N, 1, H, W), (N, 2)."""
    bright = images[:, 0].clamp(0, 1)
    weight = bright / bright.sum((1, 2), keepdim=True).clamp(min=1e-6)
    index = torch.arange(images.shape[-1])
    return torch.stack([(weight.sum(1) * index).sum(1), (weight.sum(2) * index).sum(1)], dim=1)


def moved_share() -> float:
    """Train on bars; return the share of 64 samples whose bar is more than half a pixel away from its place."""
    store, steps = bars(), 300
    length = {"batch_size": 32, "num_images": 32 * steps, "report_interval": 32 * steps, "validation_images": 8}
    changes = {"optimizer": {"lr": 5e-3, "warmup_images": 200}, "model": {"width": 16, "attention_levels": []}}
    training = length | {"checkpoint_interval": 32 * steps, "preview_images": 0, "ema_half_life": 320}
    training |= {"ema_rampup_ratio": 0.05}
    run = make_run(store, training=training, diffusion={"num_timesteps": 1000}, **changes, **AUGMENTED)
    samples = generate_images(
        network_of(run, run_training(run, store)[-1].checkpoint),
        SamplingPlan(run.diffusion, "dpm_solver++", 10),
        run.image_shape,
        0,
        range(64),
    )
    return float(((places(samples) - torch.tensor([2.5, 2.0])).norm(dim=1) > 0.5).float().mean())


def network_of(run: Run, checkpoint: Checkpoint | None) -> UNet:
    assert checkpoint is not None
    network = UNet(run.model, run.image_shape[0], len(run.class_names)).eval()
    network.load_state_dict(checkpoint.ema)
    return network


@pytest.mark.slow
def test_samples_show_no_augmentation_and_without_its_labels_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled, batch = moved_share(), Trainer.batch

    def without_labels(self: Trainer, *arguments: Any) -> Batch:
        *others, augmentation = batch(self, *arguments)
        assert augmentation is not None
        return (*others, torch.zeros_like(augmentation))

    monkeypatch.setattr(Trainer, "batch", without_labels)
    assert labelled < 0.05
    assert moved_share() > 0.3


def test_labels_of_zero_equal_a_network_without_them_to_the_bit() -> None:
    for classes in (0, 3):
        network = randomise(UNet(MODEL, 1, classes, LABELS)).eval()
        plain = UNet(MODEL, 1, classes).eval()
        plain.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if name != EMBEDDING})
        x, t, labels = torch.randn(3, 1, 8, 8), torch.tensor([1, 20, 80]), torch.arange(3) if classes else None
        expected = plain(x, t, labels)
        assert torch.equal(network(x, t, labels, torch.zeros(3, LABELS)), expected)
        assert torch.equal(network(x, t, labels), expected)
        done = torch.zeros(3, LABELS)
        done[1, 4] = 1.0
        changed_images = (network(x, t, labels, done) != expected).flatten(1).any(1)
        assert changed_images.tolist() == [False, True, False]


def test_labels_for_a_network_without_them_are_an_error() -> None:
    with pytest.raises(ValueError, match="a network without them"):
        UNet(MODEL, 1)(torch.zeros(1, 1, 8, 8), torch.tensor([3]), None, torch.zeros(1, LABELS))


def test_the_network_is_told_what_was_done_to_each_image(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, given = make_trainer(store, augmentation={"non_leaking": 0.5}, training={"accumulation_steps": 2}), []
    forward = UNet.forward

    def spy(self: UNet, *arguments: Any) -> Tensor:
        given.append(arguments[3])
        return forward(self, *arguments)

    monkeypatch.setattr(UNet, "forward", spy)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    for step in range(4):  # the zero-initialised layers let no gradient through in the first steps
        trainer.step(step, trainer.pixels[step])
        assert torch.equal(torch.cat(given[-2:]), trainer.batch(step, trainer.pixels[step])[4])
    assert not torch.equal(trainer.network.state_dict()[EMBEDDING], before[EMBEDDING])
    assert trainer.whole_batch(0)["augmentation"].shape == (8, LABELS)


def test_the_other_weights_start_as_without_it(store: ImageStore) -> None:
    plain, augmented = make_trainer(store), make_trainer(store, **AUGMENTED)
    assert EMBEDDING in augmented.network.state_dict()
    assert same(plain.network.state_dict(), augmented.network.state_dict())


@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_resumed_training_equals_an_uninterrupted_one(stop_at: int, store: ImageStore) -> None:
    run = make_run(store, model={"dropout": 0.1}, **AUGMENTED)
    whole, stopped = run_training(run, store)[-1], run_training(run, store, stop_at=stop_at)[-1].checkpoint
    resumed = run_training(run, store, resume=stopped)[-1]
    assert whole.checkpoint is not None
    assert resumed.checkpoint is not None
    assert EMBEDDING in whole.checkpoint.network
    assert same(whole.checkpoint.network, resumed.checkpoint.network)
    assert same(whole.checkpoint.ema, resumed.checkpoint.ema)


def test_loader_workers_give_equal_weights(store: ImageStore) -> None:
    alone, helped = (make_run(store, training={"loader_workers": count}, **AUGMENTED) for count in (0, 1))
    assert same(weights(run_training(alone, store)), weights(run_training(helped, store)))


def test_the_exported_model_has_no_such_weights_and_samples_as_the_previews(store: ImageStore, tmp_path: Path) -> None:
    run = make_run(store, **AUGMENTED)
    report = run_training(run, store)[-1]
    assert report.checkpoint is not None
    assert report.preview is not None
    export_model(report.checkpoint, None, TRAINING).save(tmp_path)
    model = TrainedModel.load(tmp_path)
    assert EMBEDDING not in model.network.state_dict()
    assert model.network.augmentation_embedding is None
    assert same(report.checkpoint.ema, model.network.state_dict())
    trainer = make_trainer(store, **AUGMENTED)
    trainer.restore(report.checkpoint)
    trainer.ema = model.network
    preview, _ = trainer.preview()
    assert torch.equal(preview, report.preview)
    exported = to_diffusers(model)
    for _, tensors in (exported.unet, exported.with_classes):
        assert not any("augment" in name for name in tensors)


def test_a_training_starts_from_a_model_without_it(store: ImageStore) -> None:
    run, start = run_from(initial(), store), initial()
    run = replace(run, augmentation=changed(NO_AUGMENTATION, non_leaking=0.2))
    network = make_trainer_of(run, store).network
    assert same(start.network.state_dict(), network.state_dict())
    assert network.state_dict()[EMBEDDING].any()


def make_trainer_of(run: Run, store: ImageStore) -> Trainer:
    other = make_trainer(store, **AUGMENTED)
    return Trainer(run, other.images, store, other.hardware)


def test_the_preview_of_the_augmentation_shows_it() -> None:
    store = make_store(size=(28, 28))
    grids = [np.asarray(augment_images(store, p, TRAINING)[1]) for p in (NO_AUGMENTATION, NO_AUGMENTATION)]
    assert np.array_equal(*grids)
    _, augmented = augment_images(store, changed(NO_AUGMENTATION, non_leaking=0.9), TRAINING)
    assert augmented.size == grids[0].shape[1::-1]
    assert not np.array_equal(np.asarray(augmented), grids[0])
