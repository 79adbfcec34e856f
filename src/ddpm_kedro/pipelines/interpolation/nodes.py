"""Interpolate between the images of two seeds."""

import torch
from PIL import Image

from ddpm_kedro.diffusion import SAMPLERS, image_noise, slerp
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import InterpolationParameters, SamplingParameters
from ddpm_kedro.reporting.fonts import titles
from ddpm_kedro.reporting.grid import titled_rows
from ddpm_kedro.sampling.generation import choose_labels, generate, sampling_plan


def interpolate_seeds(
    model: TrainedModel, sampling: SamplingParameters, interpolation: InterpolationParameters
) -> Image.Image:
    """Generate rows of images from interpolated noise: slerp between two seeds (Song et al. 2021).

    Raises:
        UserError: for a stochastic sampler.
    """
    plan = sampling_plan(model, sampling)
    if plan.stochastic:
        deterministic = ", ".join(name for name, sampler in SAMPLERS.items() if not sampler.stochastic({}))
        raise UserError(
            f"sampling.sampler = {sampling.sampler} adds noise at each step, so images do not follow from a seed's "
            f"first noise alone. Choose a deterministic sampler: {deterministic}; ddim with sampling.ddim_eta=0."
        )
    count, frames = interpolation.num_images, interpolation.frames
    first, last = (image_noise(seed, range(count), model.image_shape)() for seed in interpolation.seeds)
    starts = torch.stack([slerp(first, last, share) for share in torch.linspace(0, 1, frames).tolist()], dim=1)
    labels = choose_labels(model, sampling.label, count)
    frame_labels = None if labels is None else labels.repeat_interleave(frames)
    images, _ = generate(model, plan, sampling, frame_labels, count * frames, start_noise=starts.flatten(0, 1))
    rows = list(images.reshape(count, frames, *images.shape[1:]))
    classes = titles(model.class_names)
    names = [f"image {row}" if labels is None else classes[labels[row]] for row in range(count)]
    return titled_rows(rows, names)
