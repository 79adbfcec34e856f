"""Draw what lies between the pictures of two seeds."""

import numpy as np
import torch
from PIL import Image

from ddpm_kedro.diffusion import image_noise, slerp
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import InterpolationParameters, SamplingParameters
from ddpm_kedro.reporting.fonts import titles
from ddpm_kedro.reporting.grid import rows_of_tiles
from ddpm_kedro.sampling.generation import draw, labels_of, plan_of


def interpolate_seeds(
    model: TrainedModel, sampling: SamplingParameters, interpolation: InterpolationParameters
) -> Image.Image:
    """Rows of pictures from one seed's noise to another's, along the sphere on which noise lies (Song et al. 2021).

    Raises:
        UserError: for a sampler that adds noise on the way.
    """
    if sampling.sampler == "ddpm" or (sampling.sampler == "ddim" and sampling.ddim_eta > 0):
        raise UserError(
            f"sampling.sampler = {sampling.sampler} adds noise on the way, so that nothing lies between two seeds; "
            "use ddim with sampling.ddim_eta=0, dpm_solver++ or heun."
        )
    count, frames = interpolation.num_images, interpolation.frames
    first, last = (image_noise(seed, range(count), model.image_shape)() for seed in interpolation.seeds)
    starts = torch.stack([slerp(first, last, share) for share in torch.linspace(0, 1, frames).tolist()], dim=1)
    labels = labels_of(model, sampling.label, count)
    drawn, _ = draw(
        model,
        plan_of(model, sampling),
        sampling,
        None if labels is None else labels.repeat_interleave(frames),
        count * frames,
        start_noise=starts.flatten(0, 1),
    )
    rows = list(np.asarray(drawn).reshape(count, frames, *drawn.shape[1:]))
    classes = titles(model.class_names)
    names = [f"image {row}" if labels is None else classes[labels[row]] for row in range(count)]
    return rows_of_tiles(rows, names)
