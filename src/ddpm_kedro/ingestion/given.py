"""Convert single images that a person gives for a task, like the images of a source."""

import logging
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import (
    CLIPPED,
    COLOUR,
    TRANSPARENT,
    UPRIGHT,
    ImageFormat,
    LabelledImage,
    RejectedImageError,
)
from ddpm_kedro.ingestion.decoding import decode, inspect, probe, without_warnings

logger = logging.getLogger(__name__)
COLOURS = {1: "grey", 3: "colour", 4: "colour with transparency"}


class GivenImage(NamedTuple):
    """An image file that is not decoded yet.

    Attributes:
        name: path of the file, for messages.
        data: content of the file.
    """

    name: str
    data: bytes


@without_warnings()
def convert_given(given: GivenImage, target: ImageFormat) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of a given image in a format, and log how it was converted.

    If the format has no value_bits, a grey 16-bit image is scaled to the bits that it uses itself.

    Raises:
        UserError: if the file cannot be decoded; the message has the reason.
    """
    try:
        probed = probe(given.data)
        if probed.deep and target.value_bits is None:
            target = replace(target, value_bits=min(max(inspect(given.data).bits, 8), 16))
        decoded = decode(given.data, target)
    except RejectedImageError as reason:
        raise UserError(
            f"{given.name} gives no image: {reason}. Save another image there, such as a PNG or JPEG, or remove it."
        ) from reason
    logger.info("%s %s.", PurePath(given.name).name, _describe(decoded, (probed.width, probed.height), target))
    return decoded.pixels


@without_warnings()
def displayed_size(given: GivenImage) -> tuple[int, int]:
    """Return width and height in pixels of a given image as it is displayed.

    Raises:
        UserError: if the file is no image.
    """
    try:
        height, width, *_ = probe(given.data)
    except RejectedImageError as reason:
        raise UserError(f"{given.name} gives no image: {reason}. Save another image there, or remove it.") from reason
    return width, height


def _describe(decoded: LabelledImage, size: tuple[int, int], target: ImageFormat) -> str:
    """Return how an image of a displayed size (width, height) was converted."""
    assert decoded.original is not None
    (width, height), new = size, f"{target.width}×{target.height}"
    scale = max(target.width / width, target.height / height)
    inner = f"{round(target.width / scale)}×{round(target.height / scale)}"
    background = "/".join(map(str, target.background))
    fits = {
        "crop": f"the middle {inner} becomes {new}" if inner != f"{width}×{height}" else f"becomes {new}",
        "pad": f"becomes {new} with borders of {background} where it is too narrow",
        "exact": f"is stretched to {new}",
    }
    notes = {
        UPRIGHT: "turned upright (EXIF)",
        TRANSPARENT: f"on {background} where it is transparent" if target.channels != 4 else "",
        COLOUR: "",
        CLIPPED: f"values above {2 ** (target.value_bits or 16) - 1:,} clipped",
    }
    special = [note for each in decoded.original.treatments if (note := notes.get(each, each))]
    fit = fits[target.fit] if size != (target.width, target.height) else "keeps its size"
    source = f"({decoded.original.kind}, {width}×{height})"
    return ", ".join([f"{source}: {fit}", COLOURS[target.channels], *special])
