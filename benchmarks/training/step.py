"""Measure the duration of a step and the share of the machine's peak speed that it reaches."""

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
from benchmarks.training.learners import Learner, Ours
from benchmarks.training.networks import Shape, flops_per_image, our_parameters, parameter_count

from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import OptimizerParameters
from ddpm_kedro.parameters.base import Device, Precision
from ddpm_kedro.provenance import Provenance

STORED = 256  # images
NUM_IMAGES = 10**6  # length of the learning rate schedule, which does not change the cost
PRODUCTS = [(2048, 2048, 2048), (32768, 1152, 128), (8192, 2304, 256), (2048, 2304, 256)]
"""A square product, and the products of the convolutions of 32 images at 32×32, 16×16 and 8×8."""
PRODUCTS_OF_A_GPU = [(8192, 8192, 8192), (262144, 1152, 128), (65536, 2304, 256), (16384, 2304, 256)]
"""The same for 256 images."""
ON_END = {"cpu": 1, "cuda": 10}
"""Steps per timing: a GPU gets the next step before it has finished the last one."""
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
"""The optimizer of diffusers' script."""
LUCIDRAINS = SCRIPT.model_copy(update={"name": "adam", "betas": (0.9, 0.99), "weight_decay": 0.0})

Make = Callable[[Shape, dict[str, Any], ImageStore, Hardware], Learner]


def ours(shape: Shape, groups: dict[str, Any], store: ImageStore, hardware: Hardware, compile: str = "none") -> Ours:
    """Return our trainer with a network of this shape, compiled or not."""
    training = groups["training"].model_copy(update={"compile": compile})
    return Ours(groups | {"model": our_parameters(shape), "training": training}, store, hardware)


def script(shape: Shape, groups: dict[str, Any], store: ImageStore, hardware: Hardware) -> Learner:
    """Return diffusers' script as it is: attention heads of 8 channels."""
    return diffusers(replace(shape, head_channels=8), groups, store, hardware)


def diffusers(shape: Shape, groups: dict[str, Any], store: ImageStore, hardware: Hardware, **options: Any) -> Learner:
    """Return diffusers' script with one attention head, as the published model has it, and with these options."""
    from benchmarks.training.peers import Diffusers  # noqa: PLC0415  ours can be measured without it

    return Diffusers(shape, SCRIPT, hardware, **options)


def lucidrains(shape: Shape, groups: dict[str, Any], store: ImageStore, hardware: Hardware) -> Learner:
    """Return the step of lucidrains' trainer."""
    from benchmarks.training.peers import Lucidrains  # noqa: PLC0415

    return Lucidrains(shape, LUCIDRAINS, hardware)


CANDIDATES: dict[str, Make] = {
    "ours": ours,
    "diffusers": script,
    "diffusers (one head)": diffusers,
    "diffusers (one head + channels last)": partial(diffusers, channels_last=True),
    "lucidrains": lucidrains,
}
COMPILED = {f"ours (compiled: {mode})": partial(ours, compile=mode) for mode in ("default", "reduce-overhead")}
"""Measured only if named: compilation takes minutes before the first step."""


def made(
    make: Make, shape: Shape, groups: dict[str, Any], store: ImageStore, hardware: tuple[Device, Precision]
) -> Learner:
    """Return a candidate on a device, in a precision."""
    device, precision = hardware
    learner = make(shape, groups, store, choose_hardware(device, "fp32"))
    learner.hardware = choose_hardware(device, precision)
    return learner


def random_store(shape: Shape, count: int) -> ImageStore:
    """Return a store of random images without classes."""
    size = (count, shape.size, shape.size, shape.channels)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    return ImageStore(images, None, (), Provenance({}, {}))


def timed(run: Callable[[], Any], device: str = "cpu") -> float:
    """Return the seconds of one run; on a GPU the mean of several consecutive runs."""
    times, wait = ON_END[device], torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait()
    return (time.perf_counter() - start) / times


def products(precision: str, device: str = "cpu") -> dict[str, tuple[Callable[[], Any], float]]:
    """Return matrix products by shape, with their floating-point operations."""
    found: dict[str, tuple[Callable[[], Any], float]] = {}
    for m, k, n in PRODUCTS if device == "cpu" else PRODUCTS_OF_A_GPU:
        a, b = (torch.randn(*size, dtype=DTYPES[precision], device=device) for size in ((m, k), (k, n)))
        found[f"{m}×{k}×{n}"] = partial(torch.mm, a, b), 2.0 * m * k * n
    return found


def as_in_a_run(device: str) -> None:
    """Allow TF32 for all candidates, as in our runs."""
    if device == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def serve(
    connection: Connection, name: str, hardware: tuple[Device, Precision], shape: Shape, groups: dict[str, Any]
) -> None:
    """Serve a candidate in its own process: send its size, then run steps on request and send their seconds."""
    device = hardware[0]
    as_in_a_run(device)
    store = random_store(shape, STORED)
    learner = made((CANDIDATES | COMPILED)[name], shape, groups, store, hardware)
    pixels = torch.from_numpy(store.images).to(device)
    connection.send((parameter_count(learner.network), flops_per_image(learner.network, shape)))
    while (request := connection.recv()) is not None:
        turn, batch = request
        connection.send(timed(partial(learner.step, turn, pixels[:batch], None, NUM_IMAGES), device))


class Candidate:
    """A candidate in a process with its own memory allocator; it sleeps between requests."""

    parameters: int
    flops: float

    def __init__(self, name: str, hardware: tuple[Device, Precision], shape: Shape, groups: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, hardware, shape, groups))
        self.process.start()
        theirs.close()  # otherwise recv would wait for ever if the process dies

    def ready(self) -> None:
        """Wait until it can run steps."""
        self.parameters, self.flops = self.connection.recv()

    def step(self, turn: int, batch: int) -> float:
        """Return the seconds of a step."""
        self.connection.send((turn, batch))
        return float(self.connection.recv())

    def end(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join()


def measure(
    groups: dict[str, Any],
    shape: Shape,
    only: list[str],
    batches: list[int],
    precisions: list[Precision],
    rounds: int,
    device: Device = "cpu",
) -> dict[str, Any]:
    """Measure all candidates, batches and products of each precision in interleaved rounds, after a warm-up: medians.

    The first candidate changes from round to round.
    """
    names = [name for name in CANDIDATES | COMPILED if name in (only or CANDIDATES)]
    rows, gemm = [], {}
    as_in_a_run(device)
    for precision in precisions:
        candidates = {name: Candidate(name, (device, precision), shape, groups) for name in names}
        for candidate in candidates.values():
            candidate.ready()
        multiply = products(precision, device)
        steps: dict[Any, list[float]] = {(name, batch): [] for batch in batches for name in names}
        rates: dict[str, list[float]] = {kind: [] for kind in multiply}
        for turn in range(rounds + 1):
            for batch in batches:
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    steps[name, batch].append(candidates[name].step(turn, batch))
            for kind, (product, operations) in multiply.items():
                rates[kind].append(operations / min(timed(product, device) for _ in range(3)))
            print(f"{precision}, round {turn} of {rounds}", flush=True)
        for candidate in candidates.values():
            candidate.end()
        gemm[precision] = {kind: statistics.median(measured[1:]) for kind, measured in rates.items()}
        rows += [_row(key, precision, candidates[key[0]], times[1:], gemm[precision]) for key, times in steps.items()]
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
