"""From a network to predicted images: the only place that knows network, target, guidance and thresholds."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion.schedules import Step
from ddpm_kedro.diffusion.targets import Target

Autocast = Callable[[], AbstractContextManager[object]]


def clamp(x0: Tensor) -> Tensor:
    """Limit values to [-1, 1] (Ho et al. 2020, in their code)."""
    return x0.clamp(-1, 1)


def dynamic(x0: Tensor, quantile: float = 0.995) -> Tensor:
    """Limit values to a quantile of each image's absolute values, and scale to [-1, 1] (Saharia et al. 2022, 2.3)."""
    limit = x0.abs().flatten(1).quantile(quantile, dim=1).clamp(min=1)[:, None, None, None]
    return x0.clamp(-limit, limit) / limit


THRESHOLDS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x0: x0, "clamp": clamp, "dynamic": dynamic}


@dataclass(frozen=True)
class Denoiser:
    """Predict x_0 from x_t, for every target (noise, v, …). The result has the dtype of x_t.

    Attributes:
        network: network, called as ``network(c_in · x, timesteps, labels)``.
        target: target that the network predicts.
        labels: classes of the images, (N,) int64, or None for a model without classes.
        guidance_scale: 1 for the conditional prediction alone, otherwise
            unconditional + scale · (conditional - unconditional) (Ho and Salimans 2022, eq. 6, w = scale - 1).
        guidance_interval: lowest and highest noise level sigma / alpha with guidance, both included
            (Kynkäänniemi et al. 2024); None for guidance at all levels.
        threshold: name in ``THRESHOLDS`` of the function that keeps x_0 in range.
        autocast: function that returns the context in which the network runs, for lower precision.
    """

    network: nn.Module
    target: Target
    labels: Tensor | None = None
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    threshold: str = "clamp"
    autocast: Autocast = nullcontext

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """Return the predicted x_0 at ``x`` (N, C, H, W) and ``step``: same shape, dtype and device as ``x``."""
        prediction = self._guided(step.c_in * x, step)
        return THRESHOLDS[self.threshold](self.target.to_x0(prediction, x, step.alpha, step.sigma))

    def _guided(self, x: Tensor, step: Step) -> Tensor:
        if self.labels is None or self.guidance_scale == 1 or not self._within(step):
            return self._predict(x, step.c_noise, self.labels)
        empty = torch.full_like(self.labels, self.network.num_classes)  # type: ignore[arg-type]
        both = self._predict(x.repeat(2, 1, 1, 1), step.c_noise, torch.cat([self.labels, empty]))
        conditional, unconditional = both.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _within(self, step: Step) -> bool:
        low, high = self.guidance_interval or (0.0, math.inf)
        return low <= (step.sigma / step.alpha if step.alpha else math.inf) <= high

    def _predict(self, x: Tensor, c_noise: float, labels: Tensor | None) -> Tensor:
        timesteps = torch.full((len(x),), c_noise, device=x.device)
        with self.autocast():
            return self.network(x, timesteps, labels).to(x.dtype)
