"""Measure what this device can do: the one module of this package that reads a clock."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

from ddpm_kedro.diffusion import TARGETS, diffusion_loss, make_schedule, seed_global_state
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.models import build_network
from ddpm_kedro.parameters import Device, DiffusionParameters, ModelParameters, OptimizerParameters, Precision
from ddpm_kedro.planning.cost import Cost, extractor_cost, unet_cost
from ddpm_kedro.planning.networks import networks
from ddpm_kedro.planning.profile import EXTRACTOR, DeviceProfile, Timing
from ddpm_kedro.training.optimizers import make_optimizer

CLASSES = 10
STEPS = 3  # timed steps of each network, at most
DIFFUSION = DiffusionParameters(num_timesteps=1000, schedule="cosine", target="v")
ADAM = OptimizerParameters(
    name="adam",
    lr=1e-4,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    warmup_images=0,
    lr_schedule="constant",
    final_lr_fraction=1.0,
    max_grad_norm=1.0,
)
REFERENCES = {
    "cpu": ((16, 32, 2, 8), (64, 32, 2, 8), (32, 32, 1, 8), (64, 32, 1, 8), (128, 32, 2, 8), (32, 64, 2, 16)),
    "gpu": (
        (32, 32, 1, 128),
        (64, 32, 1, 128),
        (128, 32, 1, 32),
        (128, 32, 1, 128),
        (64, 128, 2, 32),
        (128, 64, 1, 32),
    ),
}
"""Reference networks in the order of their cost: width, pixels per side, patch size, batch."""
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


def name_device(processor: str, device: Device, precision: Precision) -> str:
    """Return the kind of the device that training uses: name, threads, precision, version of torch."""
    hardware = choose_hardware(device, precision)
    version = torch.__version__.partition("+")[0]
    if hardware.device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, {hardware.precision}, torch {version}"
    return f"{processor}, {torch.get_num_threads()} threads, {hardware.precision}, torch {version}"


def measure_profile(kind: str, device: Device, precision: Precision, seconds: float) -> DeviceProfile:
    """Time a few training steps of reference networks, in at most about this time; at least of the smallest one.

    Args:
        kind: name of the device, from :func:`name_device`.
        device, precision: as for training.
        seconds: maximum time.
    """
    hardware = choose_hardware(device, precision)
    deadline = time.perf_counter() + seconds
    wait = (lambda: None) if hardware.device.type == "cpu" else torch.accelerator.synchronize
    timings: list[Timing] = []
    with seed_global_state(0, hardware.device):
        for left, (name, cost, batch, step) in _steps(hardware):
            started = time.perf_counter()
            first = _time(step, wait)  # compiles kernels and allocates memory
            if timings and time.perf_counter() + first > deadline:
                break
            taken = [_time(step, wait)] if not timings or seconds else [first]
            share = started + max(0.0, deadline - started) / left
            while len(taken) < STEPS and time.perf_counter() + taken[-1] < share:
                taken.append(_time(step, wait))
            fastest = min(taken)  # other programs only make steps slower
            timings.append(Timing(name, cost.flops, cost.elements, cost.operations, batch, fastest))
            if time.perf_counter() > deadline:
                break
    return DeviceProfile(kind, hardware.device.type, hardware.precision, device_memory(hardware), tuple(timings))


def device_memory(hardware: Hardware) -> int:
    """Return the bytes of memory that the device has, also in a container that is limited to less."""
    if hardware.device.type == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # there is no such file, or no limit: "max"
        total = min(total, int(MEMORY_LIMIT.read_text()))
    return total


def _time(step: Callable[[], None], wait: Callable[[], None]) -> float:
    """Return the seconds of a step."""
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started


def _steps(hardware: Hardware) -> Iterator[tuple[int, tuple[str, Cost, int, Callable[[], None]]]]:
    """Yield name, cost, batch and training step of each reference network, after the number that is left.

    The evaluation's extractor comes second.
    """
    kind = "cpu" if hardware.device.type == "cpu" else "gpu"
    for number, (width, side, patch, batch) in enumerate(REFERENCES[kind]):
        shape = (3, side, side)
        [model] = [each for each in networks(shape, patch, {}) if each.width == width]
        name = f"width {width}, {side} pixels, patches of {patch}"
        left, cost = len(REFERENCES[kind]) - number, unet_cost(model, shape, CLASSES)
        yield left + (number == 0), (name, cost, batch, _training_step(model, shape, batch, hardware))
        if number == 0:
            yield left, (EXTRACTOR, extractor_cost((3, 32, 32), CLASSES), 64, _fitting_step(64, hardware.device))


def _training_step(
    model: ModelParameters, shape: tuple[int, int, int], batch: int, hardware: Hardware
) -> Callable[[], None]:
    device = hardware.device
    network = build_network(model, shape[0], CLASSES).to(device).to(memory_format=hardware.memory_format)
    ema = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer, scaler = make_optimizer(network.parameters(), ADAM), hardware.grad_scaler()
    schedule, target = make_schedule(DIFFUSION).to(device), TARGETS[DIFFUSION.target]
    x0 = torch.rand(batch, *shape, device=device).contiguous(memory_format=hardware.memory_format)
    labels, indices = torch.arange(batch, device=device) % CLASSES, torch.arange(batch, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with hardware.autocast():
            loss = diffusion_loss(network, schedule, target, x0, indices, torch.randn_like(x0), labels).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), ADAM.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        torch._foreach_lerp_(ema, [parameter.detach() for parameter in network.parameters()], 0.01)

    return step


def _fitting_step(batch: int, device: torch.device) -> Callable[[], None]:
    network = Classifier(3, CLASSES).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    images, labels = torch.rand(batch, 3, 32, 32, device=device), torch.arange(batch, device=device) % CLASSES

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images)[1], labels).backward()
        optimizer.step()

    return step
