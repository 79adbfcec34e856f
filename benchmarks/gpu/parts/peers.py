"""A step of diffusers' training script and of lucidrains' trainer, unchanged and tuned."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import measure_candidate, native_precision
from benchmarks.training.results import Row
from benchmarks.training.step import diffusers, lucidrains, script


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per candidate, all at one batch."""
    mixed = native_precision(settings)
    tuned = partial(diffusers, channels_last=True, fused=True)
    candidates = (
        ("diffusers' script as it is", script, "fp32", False),
        (f"diffusers' script, mixed_precision={mixed}", script, mixed, True),
        ("diffusers, one head, channels last, fused AdamW", tuned, mixed, True),
        ("lucidrains' trainer as it is", lucidrains, "fp32", False),
        (f"lucidrains' trainer, amp in {mixed}", lucidrains, mixed, True),
    )
    for name, make, precision, tf32 in candidates:
        yield from measure_candidate(name, make, precision, (settings.sizes.compared,), settings, tf32=tf32)
