"""Checkpoints in the format of earlier versions are read and resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DatasetError

from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.training.resume_plan import ResumePlan
from ddpm_kedro.training.run import Checkpoint
from tests.training.test_finetuning import initial, run_from
from tests.training.test_loop import make_run, run_training, same, weights


def in_format_2(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of the file that versions with format 2 wrote for this checkpoint."""
    record, inputs = checkpoint.record, checkpoint.record.made_by.inputs
    return {
        "format": "ddpm_kedro checkpoint 2",
        "run_id": record.run_id,
        "parameters": record.made_by.parameters,
        "data": inputs["training_images"],
        "images_seen": checkpoint.images_seen,
        "num_images": 64,
        "network": checkpoint.network,
        "average": checkpoint.ema,
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
        "history": checkpoint.history,
        "meter": checkpoint.meter,
        "image_shape": record.image_shape,
        "class_names": record.class_names,
        "best_validation_loss": checkpoint.best_validation_loss,
        "initial_model": inputs.get("initial_model"),
        "continued_from": inputs.get("continued_from"),
        "tracking_id": record.tracking_id,
    }


@pytest.fixture
def dataset(tmp_path: Path) -> CheckpointDataset:
    return CheckpointDataset(filepath=str(tmp_path / "checkpoint.pt"), archive=str(tmp_path / "runs"))


def checkpoint_after(steps: int, run: Any, store: ImageStore) -> Checkpoint:
    checkpoint = run_training(run, store, stop_at=steps)[-1].checkpoint
    assert checkpoint is not None
    return checkpoint


def test_a_training_interrupted_in_format_2_resumes_to_equal_weights(
    dataset: CheckpointDataset, store: ImageStore, tmp_path: Path
) -> None:
    run = make_run(store, model={"dropout": 0.1})
    torch.save(in_format_2(checkpoint_after(3, run, store)), tmp_path / "checkpoint.pt")
    plan = ResumePlan.of(run, dataset.load())
    assert plan.other is None
    assert plan.checkpoint is not None
    assert plan.checkpoint.images_seen == 24
    whole, resumed = run_training(run, store), run_training(plan.run, store, resume=plan.checkpoint)
    assert same(weights(resumed), weights(whole))
    assert [row["loss"] for row in resumed[-1].history] == [row["loss"] for row in whole[-1].history]
    assert resumed[-1].checkpoint is not None
    dataset.save(resumed[-1].checkpoint)
    assert torch.load(tmp_path / "checkpoint.pt")["format"] == "ddpm_kedro checkpoint 3"
    assert not (tmp_path / "runs").exists()  # it is the same run


def test_everything_that_format_2_holds_is_kept(dataset: CheckpointDataset, store: ImageStore, tmp_path: Path) -> None:
    run = replace(run_from(initial(), store), continued_from="0123456789ab@8", tracking_id="another")
    expected = checkpoint_after(2, run, store)
    torch.save(in_format_2(expected), tmp_path / "checkpoint.pt")
    loaded = dataset.load()
    assert loaded is not None
    assert set(loaded.record.made_by.inputs) == {"training_images", "initial_model", "continued_from"}
    tensors = ("network", "ema", "optimizer")
    for name in tensors:
        torch.testing.assert_close(getattr(loaded, name), getattr(expected, name), rtol=0, atol=0)
    empty: dict[str, Any] = {name: {} for name in tensors}
    assert replace(loaded, **empty) == replace(expected, **empty, trained_on="")  # unknown in format 2


def test_a_checkpoint_in_an_unknown_format_says_what_to_do(dataset: CheckpointDataset, tmp_path: Path) -> None:
    torch.save({"format": "ddpm_kedro checkpoint 1"}, tmp_path / "checkpoint.pt")
    with pytest.raises(DatasetError, match=r"its format is 'ddpm_kedro checkpoint 1'.*Move it away to train from"):
        dataset.load()
