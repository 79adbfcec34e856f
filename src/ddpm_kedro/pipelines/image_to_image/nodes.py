"""Generate variations of images: add noise to them, and denoise them."""

from PIL import Image

from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImagesParameters, ImageToImageParameters, SamplingParameters
from ddpm_kedro.reporting.grid import titled_rows
from ddpm_kedro.sampling.generation import generate, sampling_plan
from ddpm_kedro.sampling.inputs import input_images


def vary_images(
    model: TrainedModel,
    holdout_images: ImageStore,
    given_picture: GivenImage | None,
    sampling: SamplingParameters,
    image_to_image: ImageToImageParameters,
    images: ImagesParameters,
) -> Image.Image:
    """Generate a row of variations for each strength (Meng et al. 2022, SDEdit), below the images they start from.

    Raises:
        UserError: for a given image that cannot be converted to the model's images.
    """
    count = image_to_image.num_images
    start, labels = input_images(model, given_picture, holdout_images, count, sampling.label, images)
    rows, names = [to_uint8(start).numpy()], ["input"]
    for strength in image_to_image.strengths:
        plan = sampling_plan(model, sampling, strength)
        variations, _ = generate(model, plan, sampling, labels, count, image=start)
        rows.append(variations)
        names.append(f"strength {strength:g}")
    return titled_rows(rows, names)
