"""From a network to predicted pictures: the only place that knows network, target, guidance and clamping."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion.schedules import Step
from ddpm_kedro.diffusion.targets import Target


@dataclass(frozen=True)
class Denoiser:
    """Predicts x_0 in float32 from x_t, whatever the network predicts.

    Attributes:
        network: called as ``network(x, timesteps, labels)``.
        target: what the network predicts.
        labels: (N,) int64, or None for a model without classes.
        guidance_scale: 1 asks for the conditional prediction alone; above 1 the prediction is
            unconditional + scale · (conditional - unconditional) (Ho and Salimans 2022, eq. 6, w = scale - 1).
        autocast: makes the context in which the network alone runs, for lower precision.
    """

    network: nn.Module
    target: Target
    labels: Tensor | None = None
    guidance_scale: float = 1.0
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """Predicted x_0 at ``x`` (N, C, H, W) and ``step``, clamped to [-1, 1], like ``x``."""
        prediction = self._guided(x, step.timestep)
        return self.target.to_x0(prediction, x, step.alpha, step.sigma).clamp(-1, 1)

    def _guided(self, x: Tensor, timestep: float) -> Tensor:
        if self.labels is None or self.guidance_scale == 1:
            return self._predict(x, timestep, self.labels)
        empty = torch.full_like(self.labels, self.network.num_classes)  # type: ignore[arg-type]
        both = self._predict(x.repeat(2, 1, 1, 1), timestep, torch.cat([self.labels, empty]))
        conditional, unconditional = both.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _predict(self, x: Tensor, timestep: float, labels: Tensor | None) -> Tensor:
        timesteps = torch.full((len(x),), timestep, device=x.device)
        with self.autocast():
            return self.network(x, timesteps, labels).float()
