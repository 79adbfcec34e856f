"""Compiled steps: ours, and diffusers' at its best tuning."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import measure_candidate, native_precision
from benchmarks.training.results import Row
from benchmarks.training.step import diffusers, ours


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per candidate and batch, the most important first: the time may not be enough for all."""
    precision, sizes = native_precision(settings), settings.sizes
    tuned = partial(diffusers, channels_last=True, fused=True)
    graphs = ("default",) if settings.device == "cpu" else ("reduce-overhead", "default")
    for batch in (sizes.compared, *(each for each in sizes.batches if each != sizes.compared)):
        for mode in graphs:
            candidates = (
                (f"ours, compile={mode}", partial(ours, compile=mode)),
                (f"diffusers, one head, channels last, fused AdamW, compile={mode}", partial(tuned, compile=mode)),
            )
            for name, make in candidates:
                yield from measure_candidate(name, make, precision, (batch,), settings)
        if settings.tiny:
            return
