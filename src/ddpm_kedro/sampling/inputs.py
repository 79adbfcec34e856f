"""Pictures that drawing starts from: a person's own, or some of the hold-out."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.sampling.generation import labels_of

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def pictures_to_change(
    model: TrainedModel, given: Image.Image | None, holdout: ImageStore, count: int, label: int | str | None
) -> tuple[Tensor, Tensor | None]:
    """Pictures as the model knows them, and their classes.

    Args:
        given: a person's own picture, which is taken ``count`` times; None for the first ones of the hold-out,
            evenly spread.
        label: of the own picture; None for no class in particular.

    Returns:
        (count, C, H, W) float32 in [-1, 1], and (count,) int64 or None.

    Raises:
        UserError: for pictures of another shape than the model draws.
    """
    if given is not None:
        image = _as_the_model_draws(model, given)
        any_class = label is None or (label == "null" and "null" not in model.class_names)
        return image.repeat(count, 1, 1, 1), None if any_class else labels_of(model, label, count)
    if holdout.image_shape != model.image_shape:
        raise UserError(
            f"The hold-out's images are {holdout.image_shape}, but the model draws {model.image_shape} "
            "(channels, height, width): give it a picture of your own, or the images it was trained with."
        )
    chosen = torch.arange(count) * len(holdout) // count
    known = holdout.labels is not None and holdout.class_names == model.class_names
    labels = torch.from_numpy(np.asarray(holdout.labels)[chosen.numpy()]) if known else None
    return to_float(read_pixels(holdout, chosen)), labels


def mask_of(model: TrainedModel, given: Image.Image | None, box: tuple[float, float, float, float]) -> Tensor:
    """What is kept.

    Args:
        given: a person's own mask, white where the picture is to be drawn anew.
        box: without one, what is drawn anew: top, left, bottom and right as shares of height and width.

    Returns:
        (1, 1, H, W) float32, 1 where the picture is kept and 0 where it is drawn anew.

    Raises:
        UserError: for a mask of another size, or one that keeps all or nothing.
    """
    _, height, width = model.image_shape
    if given is not None:
        if given.size != (width, height):
            raise UserError(
                f"The mask is {given.width}×{given.height} pixels, but the model draws {width}×{height}: resize it."
            )
        anew = torch.from_numpy(np.asarray(given.convert("L")) > 127)
    else:
        anew = torch.zeros(height, width, dtype=torch.bool)
        rows, columns = (torch.tensor(ends) * size for ends, size in ((box[0::2], height), (box[1::2], width)))
        anew[slice(*rows.round().int().tolist()), slice(*columns.round().int().tolist())] = True
    if anew.all() or not anew.any():
        raise UserError(f"The mask keeps {'nothing' if anew.all() else 'everything'}: there is nothing to fill in.")
    return (~anew).float()[None, None]


def _as_the_model_draws(model: TrainedModel, given: Image.Image) -> Tensor:
    channels, height, width = model.image_shape
    if given.size != (width, height):
        raise UserError(
            f"The given picture is {given.width}×{given.height} pixels, but the model draws {width}×{height}: "
            "resize it."
        )
    if channels not in MODES:
        raise UserError(f"The model draws {channels} channels, which no picture has.")
    pixels = np.asarray(given.convert(MODES[channels])).reshape(1, height, width, channels)
    return to_float(torch.from_numpy(pixels.copy()))
