"""Sampling: schedule, denoiser, sampler and noise put together."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion.denoiser import Autocast, Denoiser
from ddpm_kedro.diffusion.noise import image_noise
from ddpm_kedro.diffusion.samplers import SAMPLERS, Denoise
from ddpm_kedro.diffusion.schedules import Step, make_schedule
from ddpm_kedro.diffusion.targets import TARGETS
from ddpm_kedro.parameters import DiffusionParameters

Callback = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class SamplingPlan:
    """How to sample images.

    Attributes:
        diffusion: schedule and target that the network was trained with.
        sampler: name in ``SAMPLERS``.
        num_inference_steps: number of steps of the sampler.
        options: options of this sampler, by name; None for its defaults.
        guidance_scale, guidance_interval, threshold: see :class:`Denoiser`.
        spacing, rho: see :meth:`Schedule.steps`.
        strength: share of the steps that are taken: the last, least noisy ones.
    """

    diffusion: DiffusionParameters
    sampler: str = "ddim"
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    options: dict[str, Any] | None = None
    guidance_interval: tuple[float, float] | None = None
    threshold: str = "clamp"
    spacing: str = "trailing"
    rho: float = 7.0
    strength: float = 1.0

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The rows of the schedule to visit.

        Raises:
            ValueError: see :meth:`Schedule.steps`.
        """
        steps = make_schedule(self.diffusion).steps(self.num_inference_steps, self.spacing, self.rho)
        return steps[-1 - max(1, round(self.strength * (len(steps) - 1))) :]

    @property
    def stochastic(self) -> bool:
        """Whether the sampler adds noise at each step."""
        return SAMPLERS[self.sampler].stochastic(self.options or {})

    @property
    def evaluations(self) -> int:
        """Largest number of evaluations of the denoiser for one batch."""
        return (len(self.steps) - 1) * SAMPLERS[self.sampler].evaluations_per_step

    def denoiser(self, network: nn.Module, labels: Tensor | None, autocast: Autocast = nullcontext) -> Denoiser:
        """Return the denoiser for images of these classes, (N,) int64 or None."""
        guidance = self.guidance_scale, self.guidance_interval
        return Denoiser(network, TARGETS[self.diffusion.target], labels, *guidance, self.threshold, autocast)


@torch.no_grad()
def generate_images(
    network: nn.Module,
    plan: SamplingPlan,
    image_shape: tuple[int, int, int],
    seed: int,
    indices: Sequence[int],
    labels: Tensor | None = None,
    autocast: Autocast = nullcontext,
    callback: Callback | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    start_noise: Tensor | None = None,
) -> Tensor:
    """Generate the images with these numbers as one batch, (N, C, H, W) float32 in [-1, 1].

    Args:
        network: network in evaluation mode; the images are computed on its device.
        image_shape: (C, H, W).
        seed: seed that determines, together with the number of an image, all noise of that image.
        indices: numbers of the images.
        labels: classes of the images, (N,) int64, or None.
        autocast: function that returns the context in which the network runs.
        callback: function that is called with x_t and the predicted x_0 of every evaluation, (N, C, H, W) each.
        image: (N, C, H, W) in [-1, 1]; sampling starts from it, noised to the level of the first step (Meng et al.
            2022, SDEdit).
        mask: (N, 1, H, W), 1 to keep ``image`` and 0 to generate. x_0 is predicted only for the zeros, so that the
            posterior of the kept pixels is exact.
        start_noise: standard normal noise (N, C, H, W), used instead of the first noise of ``seed``.
    """
    device = next(network.parameters()).device
    noise = image_noise(seed, indices, image_shape, device)
    labels, image, mask, start_noise = (t if t is None else t.to(device) for t in (labels, image, mask, start_noise))
    denoise = _denoise(plan.denoiser(network, labels, autocast), image, mask, callback)
    first, x0 = plan.steps[0], 0.0 if image is None else image
    x = first.alpha * x0 + first.sigma * (noise() if start_noise is None else start_noise)
    with autocast():  # around all steps: the weights are cast once; samplers compute in float32 nevertheless
        return SAMPLERS[plan.sampler].sample(denoise, x, plan.steps, noise, **plan.options or {})


def _denoise(denoiser: Denoiser, image: Tensor | None, mask: Tensor | None, callback: Callback | None) -> Denoise:
    """Return a denoiser that keeps the masked part of ``image`` and calls ``callback``."""

    def denoise(x: Tensor, step: Step) -> Tensor:
        x0 = denoiser(x, step)
        if image is not None and mask is not None:
            x0 = mask * image + (1 - mask) * x0
        if callback is not None:
            callback(x, x0)
        return x0

    return denoise
