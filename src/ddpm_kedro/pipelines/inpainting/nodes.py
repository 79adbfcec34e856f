"""Draw a part of a picture anew, so that it fits the rest."""

import numpy as np
from PIL import Image

from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import InpaintingParameters, SamplingParameters
from ddpm_kedro.reporting.grid import rows_of_tiles
from ddpm_kedro.sampling.generation import draw, plan_of
from ddpm_kedro.sampling.inputs import mask_of, pictures_to_change


def fill_in(
    model: TrainedModel,
    holdout_images: ImageStore,
    given_picture: Image.Image | None,
    given_mask: Image.Image | None,
    sampling: SamplingParameters,
    inpainting: InpaintingParameters,
) -> Image.Image:
    """Pictures, what of them is kept, and rows in which the rest is drawn anew, each with other noise.

    Raises:
        UserError: for a given picture or mask of another size than the model draws.
    """
    count = inpainting.num_images
    images, labels = pictures_to_change(model, given_picture, holdout_images, count, sampling.label)
    mask = mask_of(model, given_mask, inpainting.box).repeat(count, 1, 1, 1)
    plan = plan_of(model, sampling)
    rows, names = [to_uint8(images).numpy(), to_uint8(images * mask).numpy()], ["given", "kept"]
    for variant in range(inpainting.variants):
        other = sampling.model_copy(update={"seed": sampling.seed + variant})
        drawn, _ = draw(model, plan, other, labels, count, image=images, mask=mask)
        rows.append(np.asarray(drawn))
        names.append(f"seed {other.seed}")
    return rows_of_tiles(rows, names)
