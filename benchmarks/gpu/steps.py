"""Seconds and memory of a training step, for every candidate in turn."""

import gc
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from benchmarks.gpu.settings import Settings, parameters
from benchmarks.training.learners import Learner
from benchmarks.training.networks import flops_per_image, parameter_count
from benchmarks.training.results import Row
from benchmarks.training.step import DTYPES, NUM_IMAGES, Make, as_in_a_run, made, random_store, timed

from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.parameters.base import Precision

TORCHS_DEFAULT = "none"
"""Torch's default precision of float32 products, for scripts that do not set it."""


def native_precision(settings: Settings) -> Precision:
    """Return the precision of our training runs on the device: bf16 if it is native, else fp32."""
    chosen: Any = choose_hardware(settings.device, "auto").precision
    return chosen


def product_rate(settings: Settings, precision: str) -> float:
    """Measure operations per second of a large matrix product on random data, the ceiling of a step."""
    m, k, n = settings.sizes.product
    a, b = (torch.randn(*size, dtype=DTYPES[precision], device=settings.device) for size in ((m, k), (k, n)))
    run = partial(torch.mm, a, b)
    run()
    return 2.0 * m * k * n / min(timed(run, settings.device) for _ in range(3))


def free_memory() -> None:
    """Free the memory of the last candidate, so that the next peak is of the next candidate only."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def attempt(row: Row, measure: Callable[[], Row]) -> Row:
    """Return the row with the measurement, or with the reason why it failed."""
    try:
        return row | measure()
    except torch.OutOfMemoryError as error:
        return row | {"note": f"too little memory: {str(error).splitlines()[0]}"}
    except (RuntimeError, ImportError, AssertionError) as error:
        print(f"{row}: {error}", flush=True)
        return row | {"note": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200]}


def measure_candidate(
    name: str, make: Make, precision: Precision, batches: tuple[int, ...], settings: Settings, *, tf32: bool = True
) -> Iterator[Row]:
    """Yield a row for every batch: milliseconds of a step, images/s, peak memory, and the share of the ceiling.

    Args:
        name: of the row.
        make: builds the candidate.
        precision: fp32, or the precision of autocast.
        batches: images per step.
        settings: device and sizes.
        tf32: whether float32 products use TF32, as in our runs, or torch's default.
    """
    as_in_a_run(settings.device)
    if settings.device == "cuda" and not tf32:
        torch.backends.cuda.matmul.fp32_precision = TORCHS_DEFAULT
    ceiling, flops = product_rate(settings, precision), None
    for batch in batches:
        free_memory()
        row = {"candidate": name, "precision": precision, "batch": batch}
        row = attempt(row, partial(_measure, make, precision, batch, settings, ceiling, flops))
        flops = row.get("flops_per_image")  # counted once, since it takes as long as many steps
        yield row


def _measure(
    make: Make, precision: Precision, batch: int, settings: Settings, ceiling: float, flops: float | None
) -> Row:
    sizes, device = settings.sizes, settings.device
    learner, step = prepared_step(make, precision, batch, settings)
    first = timed(step, "cpu")  # includes compilation
    if settings.prepare:
        return {"first_step_seconds": first}
    for _ in range(sizes.warmup):
        step()
    seconds = statistics.median(timed(step, device) for _ in range(sizes.rounds))
    flops = flops or flops_per_image(learner.network, sizes.shape)
    return {
        "flops_per_image": flops,
        "parameters": parameter_count(learner.network),
        "ms": seconds * 1e3,
        "images_per_second": batch / seconds,
        "teraflops": flops * batch / seconds / 1e12,
        "share": flops * batch / seconds / ceiling,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "first_step_seconds": first,
    }


def prepared_step(
    make: Make, precision: Precision, batch: int, settings: Settings
) -> tuple[Learner, Callable[[], Any]]:
    """Return a candidate and its step on random pixels, which are already on the device."""
    groups, shape = parameters(), settings.sizes.shape
    store = random_store(shape, batch)
    learner = made(make, shape, groups, store, (settings.device, precision))
    pixels = torch.from_numpy(store.images).to(settings.device)
    return learner, partial(learner.step, 1, pixels, None, NUM_IMAGES)
