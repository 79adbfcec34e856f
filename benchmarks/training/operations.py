"""Measure the time of each operation of our step."""

import statistics
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from benchmarks.training.learners import Ours
from benchmarks.training.networks import Shape, our_parameters
from benchmarks.training.step import NUM_IMAGES, as_in_a_run, products, random_store, timed
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.parameters.base import Device, Precision

CONVOLUTIONS = {
    "aten::mkldnn_convolution",
    "aten::cudnn_convolution",
    "aten::convolution_backward",
    "aten::convolution",
}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm"}
SPENT = {"cpu": attrgetter("self_cpu_time_total"), "cuda": attrgetter("self_device_time_total")}
"""Microseconds that a profiled operation itself took on a device, its children excluded."""


def measure(
    groups: dict[str, Any], shape: Shape, batch: int, precision: Precision, rounds: int, device: Device = "cpu"
) -> dict[str, Any]:
    """Profile one step after warming up, and compute the speed of its convolutions and products."""
    as_in_a_run(device)
    store = random_store(shape, batch)
    learner = Ours(groups | {"model": our_parameters(shape)}, store, choose_hardware(device, "fp32"))
    learner.hardware = choose_hardware(device, precision)
    pixels = torch.from_numpy(store.images).to(device)

    def step() -> None:
        learner.step(1, pixels, None, NUM_IMAGES)

    with FlopCounterMode(display=False) as counter:
        step()
    counted = {str(operation).split(".")[-1]: n for operation, n in counter.get_flop_counts()["Global"].items()}
    seconds = statistics.median(timed(step, device) for _ in range(rounds))
    spent = SPENT[device]
    rows = [
        {"operation": event.key, "calls": event.count, "seconds": spent(event) / 1e6}
        for event in sorted(profiled(step, device).key_averages(), key=spent, reverse=True)
        if spent(event) and (device == "cpu" or event.key.startswith("aten::"))  # else each kernel comes twice
    ]
    multiply = products(precision, device).values()
    gemm = max(work / min(timed(product, device) for _ in range(5)) for product, work in multiply)
    reached = {
        "convolutions": _rate(rows, CONVOLUTIONS, sum(n for name, n in counted.items() if "convolution" in name)),
        "matrix products": _rate(rows, PRODUCTS, sum(n for name, n in counted.items() if name.endswith("mm"))),
    }
    return {"rows": rows, "seconds": seconds, "batch": batch, "precision": precision, "gemm": gemm, "reached": reached}


def profiled(run: Callable[[], Any], device: str) -> profile:
    """Profile one run, including the work of the device."""
    on_gpu = [ProfilerActivity.CUDA] if device == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_gpu]) as result:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    return result


def _rate(rows: list[dict[str, Any]], operations: set[str], flops: float) -> dict[str, float]:
    seconds = sum(row["seconds"] for row in rows if row["operation"] in operations)
    return {"flops": flops, "seconds": seconds}
