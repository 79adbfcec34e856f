"""How long a step takes, and what share of the machine's own speed it uses."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from benchmarks.training.learners import Diffusers, Learner, Lucidrains, Ours
from benchmarks.training.networks import Shape, flops_per_image, our_parameters, parameter_count

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import OptimizerParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.hardware import choose_hardware

STORED = 128  # images
NUM_IMAGES = 10**6  # of the schedule of the learning rate, which costs the same anywhere
PRODUCTS = [(2048, 2048, 2048), (32768, 1152, 128), (8192, 2304, 256), (2048, 2304, 256)]
"""The square product, and what the convolutions of 32 images are at 32×32, 16×16 and 8×8."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SCRIPT = OptimizerParameters(
    name="adamw",
    lr=1e-4,
    betas=(0.95, 0.999),
    weight_decay=1e-6,
    warmup_images=0,
    lr_schedule="cosine",
    final_lr_fraction=0.0,
    max_grad_norm=1.0,
)
"""Those of diffusers' script."""
LUCIDRAINS = SCRIPT.model_copy(update={"name": "adam", "betas": (0.9, 0.99), "weight_decay": 0.0})

Make = Callable[[Shape, dict[str, Any], ImageStore], Learner]
FP32 = choose_hardware("cpu", "fp32")
CANDIDATES: dict[str, Make] = {
    "ours": lambda shape, groups, store: Ours(groups | {"model": our_parameters(shape)}, store, FP32),
    "diffusers": lambda shape, groups, store: Diffusers(replace(shape, head_channels=8), SCRIPT, FP32),
    "diffusers, one head": lambda shape, groups, store: Diffusers(shape, SCRIPT, FP32),
    "diffusers, one head, channels last": lambda shape, groups, store: Diffusers(
        shape, SCRIPT, FP32, channels_last=True
    ),
    "lucidrains": lambda shape, groups, store: Lucidrains(shape, LUCIDRAINS, FP32),
}


def random_store(shape: Shape, count: int) -> ImageStore:
    """Noise, without classes."""
    size = (count, shape.size, shape.size, shape.channels)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return ImageStore(images, None, (), Provenance({}, {}))


def timed(run: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(precision: str) -> dict[str, tuple[Callable[[], Any], float]]:
    """Matrix products by their shapes, with their floating-point operations."""
    made: dict[str, tuple[Callable[[], Any], float]] = {}
    for m, k, n in PRODUCTS:
        a, b = torch.randn(m, k, dtype=DTYPES[precision]), torch.randn(k, n, dtype=DTYPES[precision])
        made[f"{m}×{k}×{n}"] = partial(torch.mm, a, b), 2.0 * m * k * n
    return made


def serve(connection: Connection, name: str, precision: str, shape: Shape, groups: dict[str, Any]) -> None:
    """In a process of its own: tell what a candidate is, then take steps as asked, and tell their seconds."""
    learner = CANDIDATES[name](shape, groups, random_store(shape, STORED))
    learner.hardware = choose_hardware("cpu", precision)
    pixels = torch.from_numpy(random_store(shape, STORED).images)
    connection.send((parameter_count(learner.network), flops_per_image(learner.network, shape)))
    while (asked := connection.recv()) is not None:
        turn, batch = asked
        connection.send(timed(partial(learner.step, turn, pixels[:batch], None, NUM_IMAGES)))


class Candidate:
    """One of them, in a process with an allocator of its own, as when it is used; it sleeps unless it is asked."""

    def __init__(self, name: str, precision: str, shape: Shape, groups: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, precision, shape, groups))
        self.process.start()
        self.parameters, self.flops = self.connection.recv()

    def step(self, turn: int, batch: int) -> float:
        """Seconds of a step."""
        self.connection.send((turn, batch))
        return float(self.connection.recv())

    def end(self) -> None:
        """Give its memory back."""
        self.connection.send(None)
        self.process.join()


def measure(
    groups: dict[str, Any], shape: Shape, only: list[str], batches: list[int], precisions: list[str], rounds: int
) -> dict[str, Any]:
    """Every candidate, batch and product of a precision in turns, ``rounds`` times after one to warm up: medians.

    Who begins changes from round to round.
    """
    names = [name for name in CANDIDATES if not only or name in only]
    rows, gemm = [], {}
    for precision in precisions:
        there = {name: Candidate(name, precision, shape, groups) for name in names}
        multiply = products(precision)
        steps: dict[Any, list[float]] = {(name, batch): [] for batch in batches for name in names}
        rates: dict[str, list[float]] = {kind: [] for kind in multiply}
        for turn in range(rounds + 1):
            for batch in batches:
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    steps[name, batch].append(there[name].step(turn, batch))
            for kind, (product, operations) in multiply.items():
                rates[kind].append(operations / min(timed(product) for _ in range(3)))
            print(f"{precision}, round {turn} of {rounds}", flush=True)
        for candidate in there.values():
            candidate.end()
        gemm[precision] = {kind: statistics.median(measured[1:]) for kind, measured in rates.items()}
        rows += [_row(key, precision, there[key[0]], times[1:], gemm[precision]) for key, times in steps.items()]
    return {"rows": rows, "gemm": gemm, "rounds": rounds, "width": shape.width, "size": shape.size}


def _row(
    key: tuple[str, int], precision: str, candidate: Candidate, times: list[float], gemm: dict[str, float]
) -> dict[str, Any]:
    (name, batch), seconds = key, statistics.median(times)
    rate = candidate.flops * batch / seconds
    return {
        "name": name,
        "parameters": candidate.parameters,
        "precision": precision,
        "batch": batch,
        "seconds": seconds,
        "fastest": min(times),
        "slowest": max(times),
        "images_per_second": batch / seconds,
        "flops_per_image": candidate.flops,
        "flops_per_second": rate,
        "share": rate / max(gemm.values()),
    }
