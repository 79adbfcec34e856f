"""Batches that loader workers read ahead."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import TrainingParameters
from ddpm_kedro.training import loader
from ddpm_kedro.training.loader import StepPixels, read_steps
from ddpm_kedro.training.randomness import batch_indices
from tests.conftest import TRAINING, changed, make_store
from tests.training.test_loop import make_run, run_training, same, weights


class Usage(NamedTuple):
    """The result of shutil.disk_usage."""

    total: int
    used: int
    free: int


def read(store: ImageStore, training: TrainingParameters, steps: range, device: str = "cpu") -> Iterator[torch.Tensor]:
    pixels = StepPixels(store, training.seed, training.batch_size)
    return read_steps(pixels, training, steps, torch.device(device))


def test_a_step_reads_the_pixels_of_its_indices(store: ImageStore) -> None:
    pixels = StepPixels(store, seed=3, batch_size=8)[5]
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, torch.from_numpy(store.images[batch_indices(3, 5, 8, 40).numpy()]))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int, store: ImageStore) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    batches = list(read(store, changed(TRAINING, loader_workers=workers), range(2, 9)))
    expected = StepPixels(store, TRAINING.seed, TRAINING.batch_size)
    assert len(batches) == 7
    assert all(torch.equal(batch, expected[step]) for batch, step in zip(batches, range(2, 9), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_trained_weights_do_not_depend_on_the_number_of_workers(store: ImageStore) -> None:
    alone, helped = (make_run(store, training={"loader_workers": count}) for count in (0, 2))
    assert alone.run_id == helped.run_id
    assert same(weights(run_training(alone, store)), weights(run_training(helped, store)))


def test_workers_ignore_ctrl_c(store: ImageStore, caplog: pytest.LogCaptureFixture) -> None:
    batches = read(store, changed(TRAINING, loader_workers=2), range(50))
    next(batches), next(batches)  # one of each worker: both are ready
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGINT)
    assert len(list(batches)) == 48
    assert "died" not in caplog.text


def test_no_batch_is_lost_if_a_worker_dies(store: ImageStore, caplog: pytest.LogCaptureFixture) -> None:
    """A stop signal to all processes of a job ends the workers before the last checkpoint is written."""
    batches = read(store, changed(TRAINING, loader_workers=1), range(50))
    seen = [next(batches)]
    [worker] = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    time.sleep(0.5)  # the training is elsewhere when the worker dies: nothing may be raised there
    seen += list(batches)
    expected = StepPixels(store, TRAINING.seed, TRAINING.batch_size)
    assert len(seen) == 50
    assert all(torch.equal(batch, expected[step]) for step, batch in enumerate(seen))
    assert "A loader worker died" in caplog.text


def test_a_read_error_is_not_mistaken_for_a_dead_worker(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(loader, "read_pixels", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(read(store, TRAINING, range(2)))


def test_too_little_shared_memory_is_an_error_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(40, size=(256, 256), channels=4)  # 0.25 MiB a picture, 2 MiB a batch
    monkeypatch.setattr(loader, "SHARED_MEMORY", tmp_path)
    for free, fits in ((10 * 2**20, True), (10 * 2**20 - 1, False)):
        monkeypatch.setattr(loader.shutil, "disk_usage", lambda _, free=free: Usage(2**30, 0, free))
        if fits:
            read(store, changed(TRAINING, loader_workers=2), range(1))
            continue
        with pytest.raises(UserError, match=r"loader_workers = 2 keeps 5 batches, 10 MiB, .*--shm-size"):
            read(store, changed(TRAINING, loader_workers=2), range(1))
    read(store, TRAINING, range(1))  # without workers nothing is shared


def test_shared_memory_is_not_checked_if_it_is_not_mounted(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "SHARED_MEMORY", tmp_path / "none")
    read(store, changed(TRAINING, loader_workers=2), range(1))
