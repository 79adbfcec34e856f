"""The memory that training and sampling need on a device, counted without computing."""

import weakref
from collections.abc import Callable
from dataclasses import replace
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
Peak = tuple[int, int]
"""Bytes that are used at one moment: a constant, and bytes per image."""


class LiveMemory(TorchDispatchMode):
    """Count the bytes of all tensors that are alive after each operation.

    Attributes:
        moments: constant bytes and bytes per image, for batches of BATCH images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moments: set[Peak] = set()
        self._fixed, self._per_image = 0, 0
        self._storages: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        per_image, rest = divmod(size, BATCH)
        fixed, per_image = (size, 0) if rest else (0, per_image)

        def free(_: Any) -> None:
            del self._storages[key]
            self._fixed, self._per_image = self._fixed - fixed, self._per_image - per_image

        self._storages[key] = weakref.ref(storage, free)
        self._fixed, self._per_image = self._fixed + fixed, self._per_image + per_image
        self.moments.add((self._fixed, self._per_image))


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
    """Return the bytes that training needs on the device, in addition to the memory of an idle process.

    They are the weights, EMA, optimizer state and gradients, the batch, and what forward and backward pass keep for a
    part of it. The passes run with tensors without data, so that every temporary tensor counts.

    Args:
        image_shape: (C, H, W).
        num_classes: 0 for a model without classes.
        part: number of images that one process computes at once.
        batch: number of images of a batch in one process; default: one part.
    """
    batch = batch or part
    names = (model, image_shape, num_classes, _simulated(hardware), activation_checkpointing, batch > part)
    weights, moments = _training_moments(*names)
    values = image_shape[0] * image_shape[1] * image_shape[2]
    states = weights * (1 + OPTIMIZERS[optimizer].states)
    waiting = (batch - part) * values * 8 + batch * values
    return states + waiting + max(fixed + part * per_image for fixed, per_image in moments)


def inference_memory(
    model: ModelParameters, image_shape: tuple[int, int, int], num_classes: int, count: int, hardware: Hardware
) -> int:
    """Return the bytes that the network needs for ``count`` images without gradients, weights included.

    With guidance, the network computes each image twice.
    """
    moments = _inference_moments(model, image_shape, num_classes, _simulated(hardware))
    return max(fixed + count * per_image for fixed, per_image in moments)


def _simulated(hardware: Hardware) -> Hardware:
    """Return the CPU that needs as much memory: not every machine has the device.

    In bfloat16 a CPU has an attention of its own; in fp16 it is the one of a GPU.
    """
    if hardware.device.type == "cpu":
        return replace(hardware, reason="")
    precision = "fp32" if hardware.precision == "fp32" else "fp16"
    return Hardware(torch.device("cpu"), precision, "")


@lru_cache(maxsize=64)
def _training_moments(
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    hardware: Hardware,
    activation_checkpointing: bool,
    accumulate: bool,
) -> tuple[int, list[Peak]]:
    """Return the bytes of the weights, and the peaks of a training step without EMA and optimizer."""

    def step(network: nn.Module, batch: tuple[Tensor, ...]) -> None:
        network.recompute_activations(activation_checkpointing)
        for weight in network.parameters() if accumulate else ():
            weight.grad = torch.empty_like(weight)
        with hardware.autocast():
            loss = diffusion_loss(network, make_schedule(DIFFUSION).to("cpu"), TARGETS["v"], *batch).mean()
        loss.backward()

    return _run(step, model, image_shape, num_classes, hardware)


@lru_cache(maxsize=64)
def _inference_moments(
    model: ModelParameters, image_shape: tuple[int, int, int], num_classes: int, hardware: Hardware
) -> list[Peak]:
    def step(network: nn.Module, batch: tuple[Tensor, ...]) -> None:
        x, timesteps, _, *labels = batch
        with torch.no_grad(), hardware.autocast():
            network.eval().requires_grad_(False)(x, timesteps, *labels)

    return _run(step, model, image_shape, num_classes, hardware)[1]


def _run(
    step: Callable[[nn.Module, tuple[Tensor, ...]], None],
    model: ModelParameters,
    image_shape: tuple[int, int, int],
    num_classes: int,
    hardware: Hardware,
) -> tuple[int, list[Peak]]:
    with FakeTensorMode(), LiveMemory() as memory:
        network = build_network(model, image_shape[0], num_classes)
        weights = sum(weight.nbytes for weight in network.parameters())
        x0 = torch.empty(BATCH, *image_shape).contiguous(memory_format=hardware.memory_format)
        numbers = torch.zeros(BATCH, dtype=torch.int64)
        step(network, (x0, numbers, torch.empty_like(x0), *([numbers] if num_classes else [])))
    front: list[Peak] = []
    for fixed, per_image in sorted(memory.moments, reverse=True):
        if not front or per_image > front[-1][1]:
            front.append((fixed, per_image))
    return weights, front
