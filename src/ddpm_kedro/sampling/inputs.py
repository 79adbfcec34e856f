"""Inputs of the tasks: images to start from, and masks."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.sampling.generation import choose_labels

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def input_images(
    model: TrainedModel, user_image: Image.Image | None, holdout: ImageStore, count: int, label: int | str | None
) -> tuple[Tensor, Tensor | None]:
    """Return the images that a task starts from, (count, C, H, W) float32 in [-1, 1], and their classes or None.

    Args:
        user_image: the user's image, repeated ``count`` times; None for ``count`` evenly spaced holdout images.
        label: class of the user's image; None for no class.

    Raises:
        UserError: for images of another shape than the model generates.
    """
    if user_image is not None:
        image = _to_model_input(model, user_image)
        no_class = label is None or (label == "null" and "null" not in model.class_names)
        return image.repeat(count, 1, 1, 1), None if no_class else choose_labels(model, label, count)
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
    model: TrainedModel, user_mask: Image.Image | None, box: tuple[float, float, float, float]
) -> Tensor:
    """Return the mask (1, 1, H, W) float32, 1 to keep a pixel and 0 to generate it.

    Args:
        user_mask: the user's mask, white where the image is to be generated; None for the box.
        box: the part to generate: top, left, bottom and right as fractions of height and width.

    Raises:
        UserError: for a mask of another size, or one that keeps all or nothing.
    """
    _, height, width = model.image_shape
    if user_mask is not None:
        if user_mask.size != (width, height):
            raise UserError(
                f"The mask is {user_mask.width}×{user_mask.height} pixels, but the model generates {width}×{height}: "
                "resize it."
            )
        generated = torch.from_numpy(np.asarray(user_mask.convert("L")) > 127)
    else:
        generated = torch.zeros(height, width, dtype=torch.bool)
        rows, columns = (torch.tensor(ends) * size for ends, size in ((box[0::2], height), (box[1::2], width)))
        generated[slice(*rows.round().int().tolist()), slice(*columns.round().int().tolist())] = True
    if generated.all() or not generated.any():
        raise UserError(
            f"The mask keeps {'nothing' if generated.all() else 'everything'}: white marks the part to generate, black "
            "the part to keep, and both are needed."
        )
    return (~generated).float()[None, None]


def _to_model_input(model: TrainedModel, image: Image.Image) -> Tensor:
    channels, height, width = model.image_shape
    if image.size != (width, height):
        raise UserError(
            f"The given image is {image.width}×{image.height} pixels, but the model generates {width}×{height}: "
            "resize it."
        )
    if channels not in MODES:
        raise UserError(f"The model generates {channels} channels, which no image file has.")
    pixels = np.asarray(image.convert(MODES[channels])).reshape(1, height, width, channels)
    return to_float(torch.from_numpy(pixels.copy()))
