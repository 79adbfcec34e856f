"""A network with what its project does in a step of training, and how that project draws.

Whatever the project, a step is given uint8 pictures; the learning rate is that of our schedule.
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
    """What is measured."""

    network: nn.Module
    hardware: Hardware

    def step(self, index: int, pixels: Tensor, labels: Tensor | None, num_images: int) -> Tensor:
        """Step ``index`` of a training of ``num_images``, with pictures (N, H, W, C) uint8; gives the loss."""
        ...

    def draw(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1]."""
        ...


class Ours:
    """The real :class:`Trainer`. It looks its labels up by itself: those of the store's next batch."""

    def __init__(self, groups: dict[str, Any], store: ImageStore, hardware: Hardware) -> None:
        keep_freed_memory()  # as a run does before it trains
        images = AugmentedImages(store, groups["augmentation"])
        run = Run.of(images, *(groups[name] for name in ("model", "diffusion", "optimizer", "training")))
        self.trainer = Trainer(run, images, store, hardware)
        self.network = self.trainer.network

    @property
    def hardware(self) -> Hardware:
        """Device and precision of the trainer."""
        return self.trainer.hardware

    @hardware.setter
    def hardware(self, hardware: Hardware) -> None:
        """Before the first step: the optimizer's state lies as the weights do."""
        self.trainer.hardware = hardware
        for network in (self.trainer.network, self.trainer.ema):
            network.to(memory_format=hardware.memory_format)

    def step(self, index: int, pixels: Tensor, labels: Tensor | None, num_images: int) -> Tensor:
        """See :class:`Learner`."""
        run = self.trainer.run
        changes = {"num_images": num_images, "batch_size": len(pixels)}
        self.trainer.run = replace(run, training=run.training.model_copy(update=changes))
        self.trainer.rows = torch.arange(len(pixels))
        made = self.trainer.step(index, pixels)
        assert made is not None  # nobody asked it to stop
        return made[0]

    def draw(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Ten steps of DPM-Solver++, with the averaged weights."""
        run = self.trainer.run
        plan = SamplingPlan(run.diffusion, "dpm_solver++", 10, guidance)
        given = self.trainer.ema, plan, run.image_shape, 1, range(count), labels, self.hardware.autocast
        return generate_images(*given)
