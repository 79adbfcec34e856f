"""The memory that training and sampling need on a device, counted without computing."""

import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_kedro.diffusion import TARGETS, diffusion_loss, make_schedule
from ddpm_kedro.hardware import Hardware
from ddpm_kedro.models import build_network
from ddpm_kedro.parameters import DiffusionParameters, ModelParameters
from ddpm_kedro.parameters.optimizer import OPTIMIZERS, OptimizerName

BATCH = 10_007  # a prime: it divides the bytes of a tensor only if the tensor has one part per image
DIFFUSION = DiffusionParameters(num_timesteps=1000, schedule="cosine", target="v")  # others need the same memory
LIBRARIES = 32 * 2**20  # bytes of workspaces and generated code, on any device
HOLES = {False: 1.3, True: 1.7}
"""On a CPU: bytes of the heap for each byte of activations, without and with activation checkpointing.

glibc aligns tensors in a way that leaves holes between them. docs/training.md compares the result with measurements.
"""
Moment = tuple[int, int]
"""Bytes in use at one moment: constant bytes, and bytes per image."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor | None]


def training_memory(
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    part: int,
    hardware: Hardware,
    activation_checkpointing: bool,
    *,
    optimizer: OptimizerName = "adam",
    batch: int | None = None,
) -> int:
    """Return the bytes that training needs on the device, in addition to a process that has loaded torch.

    They are the weights, their EMA, gradients and optimizer state, a batch, and the peak of the forward and backward
    passes of a part of it. The passes run on tensors without data, so every temporary tensor counts. Validation and
    previews compute as many images at once, and need less.

    Args:
        image_shape: (C, H, W).
        num_classes: 0 for a model without classes.
        part: number of images that a process computes at once.
        batch: number of images per step in a process; default: one part.
    """
    batch = batch or part
    weights, moments = _training_moments(
        model, image_shape, num_classes, *_simulated(hardware), activation_checkpointing, batch > part
    )
    values = image_shape[0] * image_shape[1] * image_shape[2]
    waiting = batch * values + 2 * 4 * (batch - part) * values  # pixels; images and noise of the other parts
    holes = HOLES[activation_checkpointing] if hardware.device.type == "cpu" else 1.0
    passes = max(fixed + part * per_image for fixed, per_image in moments) - weights
    states = (2 + OPTIMIZERS[optimizer].states) * weights
    return LIBRARIES + states + waiting + int(holes * passes)


def inference_memory(
    model: ModelParameters, image_shape: tuple[int, int, int], num_classes: int, count: int, hardware: Hardware
) -> int:
    """Return the bytes that the network needs for ``count`` images without gradients, weights included.

    With guidance, the network computes each image twice.
    """
    weights, moments = _inference_moments(model, image_shape, num_classes, *_simulated(hardware))
    holes = HOLES[False] if hardware.device.type == "cpu" else 1.0
    passes = max(fixed + count * per_image for fixed, per_image in moments) - weights
    return LIBRARIES + weights + int(holes * passes)


class LiveMemory(TorchDispatchMode):
    """Count the bytes of all living tensors after each operation, for batches of BATCH images."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments: set[Moment] = set()
        self._fixed, self._per_image = 0, 0
        self._storages: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._storages:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        fixed, per_image = (size, 0) if size % BATCH else (0, size // BATCH)

        def free(_: Any) -> None:
            del self._storages[key]
            self._fixed, self._per_image = self._fixed - fixed, self._per_image - per_image

        self._storages[key] = weakref.ref(storage, free)
        self._fixed, self._per_image = self._fixed + fixed, self._per_image + per_image
        self.moments.add((self._fixed, self._per_image))


def _simulated(hardware: Hardware) -> tuple[str, torch.memory_format]:
    """Return the precision on a CPU that needs as much memory as the device, and the memory format.

    The device may be missing here, and torch simulates a backward pass only on a device that it has. In bfloat16, a CPU
    has an attention of its own; in fp16, it has that of a GPU.
    """
    is_gpu = hardware.device.type != "cpu"
    return "fp16" if is_gpu and hardware.precision == "bf16" else hardware.precision, hardware.memory_format


@lru_cache(maxsize=64)
def _training_moments(
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    precision: str,
    memory_format: torch.memory_format,
    activation_checkpointing: bool,
    accumulate: bool,
) -> tuple[int, list[Moment]]:
    """Return the bytes of the weights, and the peaks of a training step with weights and gradients."""

    def step(network: nn.Module, batch: Batch) -> None:
        network.recompute_activations(activation_checkpointing)  # type: ignore[operator]
        for weight in network.parameters() if accumulate else ():
            weight.grad = torch.empty_like(weight)
        with Hardware(torch.device("cpu"), precision, "").autocast():
            loss = diffusion_loss(network, make_schedule(DIFFUSION).to("cpu"), TARGETS["v"], *batch).mean()
        loss.backward()

    return _moments(step, model, image_shape, num_classes, memory_format)


@lru_cache(maxsize=64)
def _inference_moments(
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    precision: str,
    memory_format: torch.memory_format,
) -> tuple[int, list[Moment]]:
    def evaluate(network: nn.Module, batch: Batch) -> None:
        x, timesteps, _, labels = batch
        with torch.no_grad(), Hardware(torch.device("cpu"), precision, "").autocast():
            network.eval().requires_grad_(False)(x, timesteps, labels)

    return _moments(evaluate, model, image_shape, num_classes, memory_format)


def _moments(
    compute: Callable[[nn.Module, Batch], None],
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    memory_format: torch.memory_format,
) -> tuple[int, list[Moment]]:
    """Compute with a network and a batch without data; return the bytes of the weights, and all possible peaks."""
    with FakeTensorMode(), LiveMemory() as memory:
        network = build_network(model, image_shape[0], num_classes)
        weights = sum(weight.nbytes for weight in network.parameters())
        x0 = torch.empty(BATCH, *image_shape).contiguous(memory_format=memory_format)
        numbers = torch.zeros(BATCH, dtype=torch.int64)
        compute(network, (x0, numbers, torch.empty_like(x0), numbers if num_classes else None))
    peaks: list[Moment] = []
    for fixed, per_image in sorted(memory.moments, reverse=True):
        if not peaks or per_image > peaks[-1][1]:
            peaks.append((fixed, per_image))
    return weights, peaks
