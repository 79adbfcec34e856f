"""The machine and its two ceilings: matrix products and copies."""

import subprocess
from collections.abc import Iterator

import torch
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import product_rate
from benchmarks.training.results import Row
from benchmarks.training.step import as_in_a_run, timed

QUERY = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.sm", "power.limit", "compute_mode")


def measure(settings: Settings) -> Iterator[Row]:
    """Yield the driver's information, and the fastest product and copy."""
    if settings.device == "cuda":
        yield from _ask_driver()
    as_in_a_run(settings.device)
    size = "×".join(map(str, settings.sizes.product))
    for precision in ("bf16", "fp32"):
        name = f"{precision} product {size}" + (" (TF32)" if (settings.device, precision) == ("cuda", "fp32") else "")
        yield {"what": name, "value": f"{product_rate(settings, precision) / 1e12:,.4g}", "unit": "TFLOP/s"}
    source = torch.ones(settings.sizes.copied, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)
    seconds = min(timed(lambda: target.copy_(source), settings.device) for _ in range(3))
    moved = 2 * settings.sizes.copied / seconds  # read and written
    yield {"what": "copy on the device, bytes read and written", "value": f"{moved / 1e12:.4g}", "unit": "TB/s"}


def _ask_driver() -> Iterator[Row]:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield {"what": "nvidia-smi", "value": str(error), "unit": ""}
        return
    for what, value in zip(QUERY, answer.splitlines()[0].split(", "), strict=True):
        yield {"what": what, "value": value, "unit": ""}
