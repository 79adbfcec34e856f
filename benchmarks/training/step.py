"""How long a step takes, and what share of the machine's own speed it uses."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks.training.learners import Diffusers, Learner, Lucidrains, Ours
from benchmarks.training.networks import Shape, flops_per_image, our_parameters, parameter_count

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import OptimizerParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.hardware import choose_hardware

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


def measure(
    groups: dict[str, Any], shape: Shape, only: list[str], batches: list[int], precisions: list[str], rounds: int
) -> dict[str, Any]:
    """Every candidate, batch, precision and product in turns, ``rounds`` times after one to warm up: medians."""
    store = random_store(shape, max(batches))
    names = [name for name in CANDIDATES if not only or name in only]
    learners = {(name, precision): CANDIDATES[name](shape, groups, store) for precision in precisions for name in names}
    for (_, precision), learner in learners.items():
        learner.hardware = choose_hardware("cpu", precision)
    pixels = torch.from_numpy(store.images)
    grid = [(name, precision, batch) for batch in batches for precision in precisions for name in names]
    multiply = {precision: products(precision) for precision in precisions}
    steps: dict[Any, list[float]] = {key: [] for key in grid}
    rates: dict[Any, list[float]] = {(precision, name): [] for precision, kinds in multiply.items() for name in kinds}
    for turn in range(rounds + 1):
        for name, precision, batch in grid:
            run = partial(learners[name, precision].step, turn, pixels[:batch], None, NUM_IMAGES)
            steps[name, precision, batch].append(timed(run))
        for (precision, kind), measured in rates.items():
            product, operations = multiply[precision][kind]
            measured.append(operations / min(timed(product) for _ in range(3)))
        print(f"round {turn} of {rounds}", flush=True)
    return _summary(learners, shape, steps, rates)


def _summary(
    learners: dict[tuple[str, str], Learner], shape: Shape, steps: dict[Any, Any], rates: dict[Any, Any]
) -> dict[str, Any]:
    gemm: dict[str, dict[str, float]] = {}
    for (precision, kind), measured in rates.items():
        gemm.setdefault(precision, {})[kind] = statistics.median(measured[1:])  # the first round warms up
    flops = {key: flops_per_image(learner.network, shape) for key, learner in learners.items()}
    rows = []
    for (name, precision, batch), measured in steps.items():
        seconds = statistics.median(measured[1:])
        rate = flops[name, precision] * batch / seconds
        rows.append(
            {
                "name": name,
                "parameters": parameter_count(learners[name, precision].network),
                "precision": precision,
                "batch": batch,
                "seconds": seconds,
                "fastest": min(measured[1:]),
                "slowest": max(measured[1:]),
                "images_per_second": batch / seconds,
                "flops_per_image": flops[name, precision],
                "flops_per_second": rate,
                "share": rate / max(gemm[precision].values()),
            }
        )
    rounds = len(next(iter(steps.values()))) - 1
    return {"rows": rows, "gemm": gemm, "rounds": rounds, "width": shape.width, "size": shape.size}
