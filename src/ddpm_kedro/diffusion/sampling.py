"""Drawing pictures: schedule, denoiser, sampler and noise put together."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion.denoiser import Denoiser
from ddpm_kedro.diffusion.noise import image_noise
from ddpm_kedro.diffusion.samplers import SAMPLERS
from ddpm_kedro.diffusion.schedules import Step, make_schedule
from ddpm_kedro.diffusion.targets import TARGETS
from ddpm_kedro.parameters import DiffusionParameters


@dataclass(frozen=True)
class SamplingPlan:
    """How pictures are drawn.

    Attributes:
        diffusion: what the network was trained with.
        sampler: a name in ``SAMPLERS``.
        num_inference_steps: network evaluations a picture.
        guidance_scale: see :class:`Denoiser`.
        options: of this sampler.
    """

    diffusion: DiffusionParameters
    sampler: str = "ddim"
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    options: dict[str, Any] | None = None


@torch.no_grad()
def draw_images(
    network: nn.Module,
    plan: SamplingPlan,
    image_shape: tuple[int, int, int],
    seed: int,
    indices: Sequence[int],
    labels: Tensor | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Draw the pictures with these numbers.

    Args:
        network: in evaluation mode; its device is where the work is done.
        image_shape: (C, H, W).
        seed: with a picture's number, decides all its noise.
        indices: numbers of the pictures.
        labels: (N,) int64, or None.
        autocast: makes the context in which the network runs.
        watch: is given x_t and the predicted x_0 of every step, (N, C, H, W) each.

    Returns:
        (N, C, H, W) float32 in [-1, 1].
    """
    device = next(network.parameters()).device
    steps = make_schedule(plan.diffusion).steps(plan.num_inference_steps)
    noise = image_noise(seed, indices, image_shape, device)
    labels = labels.to(device) if labels is not None else None
    denoiser = Denoiser(network, TARGETS[plan.diffusion.target], labels, plan.guidance_scale, autocast)

    def denoise(x: Tensor, step: Step) -> Tensor:
        x0 = denoiser(x, step)
        if watch is not None:
            watch(x, x0)
        return x0

    return SAMPLERS[plan.sampler](denoise, steps[0].sigma * noise(), steps, noise, **plan.options or {})
