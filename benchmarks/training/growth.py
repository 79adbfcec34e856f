"""Measure how the cost of our step grows with batch, width, resolution and store, and the overhead of the loop."""

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.training.learners import Ours
from benchmarks.training.networks import Shape, our_parameters, parameter_count
from benchmarks.training.results import Row
from benchmarks.training.step import NUM_IMAGES, random_store, timed

from ddpm_kedro.diffusion import diffusion_loss
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.loader import StepPixels
from ddpm_kedro.training.loop import train
from ddpm_kedro.training.run import Run
from ddpm_kedro.training.trainer import Trainer

SMALL = Shape(width=32, multipliers=(1, 2, 2), attention=(2,), blocks=1, groups=8)
BATCH = 16
GRID: dict[str, list[tuple[int, Shape]]] = {
    "batch": [(batch, SMALL) for batch in (4, 8, 16, 32, 64, 128)],
    "width": [(BATCH, replace(SMALL, width=width)) for width in (16, 32, 64, 128)],
    "resolution": [(BATCH, replace(SMALL, size=size)) for size in (16, 32, 64, 128)],
}
STORES = (1_000, 10_000, 100_000, 1_000_000)
Point = tuple[str, int, int, Shape, ImageStore]
"""What grows, its value, the batch size, the network and its images."""


def measure(groups: dict[str, Any], rounds: int) -> list[Row]:
    """Measure batch, width and resolution, one at a time; then the size of the store."""
    rows = []
    for what, grid in GRID.items():
        rows += in_turns(
            [(what, _value(what, *point), *point, random_store(point[1], 512)) for point in grid], groups, rounds
        )
        print(f"{what}: done", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        points = [("images", count, BATCH, SMALL, sparse_store(SMALL, count, Path(folder))) for count in STORES]
        rows += in_turns(points, groups, rounds * 4)
    return rows


def _value(what: str, batch: int, shape: Shape) -> int:
    return {"batch": batch, "width": shape.width, "resolution": shape.size}[what]


def sparse_store(shape: Shape, count: int, folder: Path) -> ImageStore:
    """Return images in a sparse memory-mapped file, which takes no space on the disk."""
    size = (count, shape.size, shape.size, shape.channels)
    images = np.lib.format.open_memmap(folder / f"{count}.npy", mode="w+", dtype=np.uint8, shape=size)
    return ImageStore(images, None, (), Provenance({}, {}))


def in_turns(points: list[Point], groups: dict[str, Any], rounds: int) -> list[Row]:
    """Measure a step at each point, reading its images included: medians of interleaved rounds after a warm-up."""
    hardware = choose_hardware("cpu", "auto")
    learners = [(Ours(groups | {"model": our_parameters(shape)}, store, hardware), StepPixels(store, 0, batch))
            for _, _, batch, shape, store in points]  # fmt: skip
    seconds: list[list[float]] = [[] for _ in points]
    for turn in range(rounds + 1):
        for (learner, pixels), taken in zip(learners, seconds, strict=True):
            pixels[turn]  # reads them into memory, so that no disk is measured, whatever the size of the store
            taken.append(timed(partial(_read_and_step, learner, pixels, turn)))
    rows = []
    for (what, value, batch, _, _), (learner, _), taken in zip(points, learners, seconds, strict=True):
        median = statistics.median(taken[1:])
        row = {"what": what, "value": value, "batch": batch, "precision": hardware.precision}
        rows.append(
            row | {"parameters": parameter_count(learner.network), "seconds": median, "per_image": median / batch}
        )
    return rows


def _read_and_step(learner: Ours, pixels: StepPixels, turn: int) -> None:
    learner.step(turn, pixels[turn], None, NUM_IMAGES)


def loop_overhead(groups: dict[str, Any], shape: Shape, batch: int, steps: int) -> Row:
    """Measure an iteration of the loop and a bare step on the same tensors, interleaved.

    The loop calls ``should_stop`` after each step: the bare step is run and timed there.
    """
    store, hardware = random_store(shape, 512), choose_hardware("cpu", "auto")
    changes = {"batch_size": batch, "num_images": batch * (steps + 2), "report_interval": batch * (steps + 2)}
    training = groups["training"].model_copy(update=changes | {"preview_images": 0})
    images = AugmentedImages(store, groups["augmentation"])
    run = Run.of(images, our_parameters(shape), groups["diffusion"], groups["optimizer"], training)
    bare, index = Trainer(run, images, store, hardware), 0
    pixels, whole, alone, start = StepPixels(store, training.seed, batch), [], [], time.perf_counter()

    def should_stop() -> bool:
        nonlocal index, start
        whole.append(time.perf_counter() - start)
        tensors = bare.batch(index, pixels[index])
        alone.append(timed(lambda: bare_step(bare, hardware, tensors)))
        index, start = index + 1, time.perf_counter()
        return False

    list(train(run, images, store, hardware, None, should_stop))
    loop, step = statistics.median(whole[1:]), statistics.median(alone[1:])
    row = {"what": "loop", "value": batch, "batch": batch, "precision": hardware.precision}
    row |= {"parameters": parameter_count(bare.network), "seconds": loop, "per_image": loop / batch}
    return row | {"bare": step, "overhead": loop - step, "overhead_share": (loop - step) / loop}


def bare_step(trainer: Trainer, hardware: Hardware, tensors: tuple[Any, ...]) -> None:
    """Run forward, backward and optimizer, without clipping, EMA, random numbers and reading."""
    with hardware.autocast():
        loss = diffusion_loss(trainer.network, trainer.schedule, trainer.target, *tensors).mean()
    trainer.optimizer.zero_grad()
    loss.backward()
    trainer.optimizer.step()
