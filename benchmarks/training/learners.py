"""Training steps and sampling of each compared project.

In every project, a step gets uint8 images, and the learning rate follows our schedule.
"""

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.hardware import Hardware, keep_freed_memory
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.training.run import Run
from ddpm_kedro.training.trainer import Trainer


class Learner(Protocol):
    """A network with its training step and its sampling."""

    network: nn.Module
    hardware: Hardware

    def step(self, index: int, pixels: Tensor, labels: Tensor | None, num_images: int) -> Tensor:
        """Run step ``index`` of a training run of ``num_images`` with images (N, H, W, C) uint8; return the loss."""
        ...

    def sample(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Generate images (N, C, H, W) in [-1, 1]."""
        ...


class Ours:
    """The real :class:`Trainer`. It reads the labels of the batch itself."""

    def __init__(self, groups: dict[str, Any], store: ImageStore, hardware: Hardware) -> None:
        keep_freed_memory()  # as a run does before training
        images = AugmentedImages(store, groups["augmentation"])
        run = Run.of(images, *(groups[name] for name in ("model", "diffusion", "optimizer", "training")))
        self.trainer = Trainer(run, images, store, hardware)
        self.network = self.trainer.network

    @property
    def hardware(self) -> Hardware:
        """Return device and precision of the trainer."""
        return self.trainer.hardware

    @hardware.setter
    def hardware(self, hardware: Hardware) -> None:
        """Set device and precision before the first step: the optimizer's state has the weights' memory format."""
        self.trainer.hardware = hardware
        for network in (self.trainer.network, self.trainer.ema):
            network.to(memory_format=hardware.memory_format)

    def step(self, index: int, pixels: Tensor, labels: Tensor | None, num_images: int) -> Tensor:
        """Run a step; see :class:`Learner`."""
        run = self.trainer.run
        changes = {"num_images": num_images, "batch_size": len(pixels)}
        self.trainer.run = replace(run, training=run.training.model_copy(update=changes))
        self.trainer.rows = torch.arange(len(pixels))
        result = self.trainer.step(index, pixels)
        assert result is not None  # None follows a stop request
        return result[0]

    def sample(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Sample with ten steps of DPM-Solver++ and EMA weights."""
        run = self.trainer.run
        plan = SamplingPlan(run.diffusion, "dpm_solver++", 10, guidance)
        arguments = self.trainer.ema, plan, run.image_shape, 1, range(count), labels, self.hardware.autocast
        return generate_images(*arguments)
