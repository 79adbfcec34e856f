"""Our step, not compiled: wall clock, host and GPU time apart, peak memory."""

from collections.abc import Iterator

from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import free_memory, measure_candidate, native_precision, prepared_step
from benchmarks.training.operations import SPENT, profiled
from benchmarks.training.results import Row
from benchmarks.training.step import CANDIDATES, timed

OURS = "ours"


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per batch. The host's time is measured at a batch so small that the GPU waits for the host."""
    precision, host = native_precision(settings), {}
    if settings.device == "cuda":
        host = {"host_ms": host_seconds(settings) * 1e3}
    for row in measure_candidate(OURS, CANDIDATES[OURS], precision, settings.sizes.batches, settings):
        gpu = {"gpu_ms": gpu_seconds(settings, row["batch"]) * 1e3} if host and "ms" in row else {}
        yield row | host | gpu


def host_seconds(settings: Settings) -> float:
    """Return how long Python takes to hand out the work of a step."""
    sizes = settings.sizes
    _, step = prepared_step(CANDIDATES[OURS], native_precision(settings), sizes.alone, settings)
    for _ in range(sizes.warmup):
        step()
    return min(timed(step, settings.device) for _ in range(sizes.rounds))


def gpu_seconds(settings: Settings, batch: int) -> float:
    """Return how long the kernels of a step take, without the gaps between them."""
    free_memory()
    _, step = prepared_step(CANDIDATES[OURS], native_precision(settings), batch, settings)
    for _ in range(settings.sizes.warmup):
        step()
    spent = SPENT[settings.device]
    events = profiled(step, settings.device).key_averages()
    # Each kernel is also listed by its own name, beside the operation that started it.
    return sum(spent(event) for event in events if event.key.startswith("aten::")) / 1e6
