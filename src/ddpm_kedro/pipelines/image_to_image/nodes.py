"""Draw variations of pictures: noise them a little, and take the noise away again."""

import numpy as np
from PIL import Image

from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImageToImageParameters, SamplingParameters
from ddpm_kedro.reporting.grid import rows_of_tiles
from ddpm_kedro.sampling.generation import draw, plan_of
from ddpm_kedro.sampling.inputs import pictures_to_change


def vary_images(
    model: TrainedModel,
    holdout_images: ImageStore,
    given_picture: Image.Image | None,
    sampling: SamplingParameters,
    image_to_image: ImageToImageParameters,
) -> Image.Image:
    """Pictures, and a row of variations for each strength (Meng et al. 2022, SDEdit).

    Raises:
        UserError: for a given picture of another size than the model draws.
    """
    count = image_to_image.num_images
    images, labels = pictures_to_change(model, given_picture, holdout_images, count, sampling.label)
    rows, names = [to_uint8(images).numpy()], ["given"]
    for strength in image_to_image.strengths:
        drawn, _ = draw(model, plan_of(model, sampling, strength), sampling, labels, count, image=images)
        rows.append(np.asarray(drawn))
        names.append(f"strength {strength:g}")
    return rows_of_tiles(rows, names)
