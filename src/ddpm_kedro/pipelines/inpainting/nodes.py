"""Generate a part of an image so that it fits the rest."""

from PIL import Image

from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImagesParameters, InpaintingParameters, SamplingParameters
from ddpm_kedro.reporting.grid import titled_rows
from ddpm_kedro.sampling.generation import generate, sampling_plan
from ddpm_kedro.sampling.inputs import inpainting_mask, input_images


def fill_in(
    model: TrainedModel,
    holdout_images: ImageStore,
    given_picture: GivenImage | None,
    given_mask: GivenImage | None,
    sampling: SamplingParameters,
    inpainting: InpaintingParameters,
    images: ImagesParameters,
) -> Image.Image:
    """Fill in the masked part of images, in one row per seed, below the images and the kept part.

    Raises:
        UserError: for a given image or mask that cannot be converted to the model's images.
    """
    count = inpainting.num_images
    start, labels = input_images(model, given_picture, holdout_images, count, sampling.label, images)
    mask = inpainting_mask(model, given_mask, given_picture, inpainting.box, images).repeat(count, 1, 1, 1)
    plan = sampling_plan(model, sampling)
    rows, names = [to_uint8(start).numpy(), to_uint8(start * mask).numpy()], ["input", "kept"]
    for variant in range(inpainting.variants):
        seeded = sampling.model_copy(update={"seed": sampling.seed + variant})
        inpainted, _ = generate(model, plan, seeded, labels, count, image=start, mask=mask)
        rows.append(inpainted)
        names.append(f"seed {seeded.seed}")
    return titled_rows(rows, names)
