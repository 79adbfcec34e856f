"""Inputs of the tasks: images to start from, and masks."""

import numpy as np
import torch
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.collection import ImageFormat
from ddpm_kedro.ingestion.given import GivenImage, convert_given, displayed_size
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ImagesParameters
from ddpm_kedro.sampling.generation import choose_labels

FILE_CHANNELS = (1, 3, 4)
BLACK = (0, 0, 0)
WHITE_FROM = 128  # grey level of 255


def given_format(model: TrainedModel, holdout: ImageStore, images: ImagesParameters) -> ImageFormat:
    """Return the format that a given image is converted to: the model's shape, and the rest as in ingestion.

    Raises:
        UserError: if the model's images have a number of channels that no image file has.
    """
    channels, height, width = model.image_shape
    if channels not in FILE_CHANNELS:
        raise UserError(f"The model generates {channels} channels, which no image file has.")
    bits = images.value_bits or holdout.statistics.get("value_bits")
    return ImageFormat(height, width, channels, images.fit, images.background, images.max_pixels, bits)


def input_images(
    model: TrainedModel,
    given: GivenImage | None,
    holdout: ImageStore,
    count: int,
    label: int | str | None,
    images: ImagesParameters,
) -> tuple[Tensor, Tensor | None]:
    """Return the images that a task starts from, (count, C, H, W) float32 in [-1, 1], and their classes or None.

    Args:
        model: the model, which gives the shape.
        given: the user's image, repeated ``count`` times; None for ``count`` evenly spaced holdout images.
        holdout: the holdout images.
        count: number of images.
        label: class of the user's image; None for no class.
        images: how the user's image is cropped or padded, and its background.

    Raises:
        UserError: for a given image that cannot be converted, or holdout images of another shape than the model's.
    """
    if given is not None:
        pixels = torch.from_numpy(convert_given(given, given_format(model, holdout, images)).copy())
        no_class = label is None or (label == "null" and "null" not in model.class_names)
        repeated = to_float(pixels[None]).repeat(count, 1, 1, 1)
        return repeated, None if no_class else choose_labels(model, label, count)
    if holdout.image_shape != model.image_shape:
        raise UserError(
            f"The holdout images are {holdout.image_shape}, but the model generates {model.image_shape} "
            "(channels, height, width): use an image of your own, or the images the model was trained with."
        )
    indices = torch.arange(count) * len(holdout) // count
    same_classes = holdout.labels is not None and holdout.class_names == model.class_names
    labels = torch.from_numpy(np.asarray(holdout.labels)[indices.numpy()]) if same_classes else None
    return to_float(read_pixels(holdout, indices)), labels


def inpainting_mask(
    model: TrainedModel,
    mask: GivenImage | None,
    given: GivenImage | None,
    box: tuple[float, float, float, float],
    images: ImagesParameters,
) -> Tensor:
    """Return the mask (1, 1, H, W) float32, 1 to keep a pixel and 0 to generate it.

    A pixel is generated if at least half of it is white. Transparent parts of the mask, and the borders that
    images.fit=pad adds, are kept.

    Args:
        model: the model, which gives the size.
        mask: the user's mask, white where the image is to be generated; None for the box. It is cropped or padded like
            the user's image, unless it has the size that the model generates.
        given: the user's image, or None.
        box: the part to generate: top, left, bottom and right as fractions of height and width.
        images: how the mask is cropped or padded.

    Raises:
        UserError: for a mask with another aspect ratio than the image, or one that keeps all or nothing.
    """
    _, height, width = model.image_shape
    if mask is not None:
        target = ImageFormat(height, width, 1, images.fit, BLACK, images.max_pixels)
        _check_aspect(mask, given, (width, height))
        grey = convert_given(mask, target)[..., 0]
        generated = torch.from_numpy(grey >= WHITE_FROM)
        found = f" {mask.name} has grey levels from {grey.min()} to {grey.max()} of 255 at the model's size."
    else:
        generated, found = torch.zeros(height, width, dtype=torch.bool), ""
        rows, columns = (torch.tensor(ends) * size for ends, size in ((box[0::2], height), (box[1::2], width)))
        generated[slice(*rows.round().int().tolist()), slice(*columns.round().int().tolist())] = True
    if generated.all() or not generated.any():
        raise UserError(
            f"The mask keeps {'nothing' if generated.all() else 'everything'}: white marks the part to generate, black "
            f"the part to keep, and both are needed.{found}"
        )
    return (~generated).float()[None, None]


def _check_aspect(mask: GivenImage, given: GivenImage | None, size: tuple[int, int]) -> None:
    """Raise a UserError if the mask fits neither the user's image nor the size (width, height) of the model."""
    width, height = displayed_size(mask)
    if given is None or (width, height) == size:
        return
    other_width, other_height = displayed_size(given)
    rounding = max(width + height, other_width + other_height) / 2  # half a pixel in width and height
    if abs(width * other_height - height * other_width) > rounding:
        raise UserError(
            f"The mask {mask.name} is {width}×{height} pixels, but the image {given.name} is {other_width}×"
            f"{other_height}: give the mask the same aspect ratio, or the size that the model generates, "
            f"{size[0]}×{size[1]}."
        )
