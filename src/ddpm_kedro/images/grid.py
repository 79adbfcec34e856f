"""Pictures of many images at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddpm_kedro.parameters import UserError

SMALLEST_TILE = 56
GAP = 4
BACKGROUND = "white"


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """One image (H, W, C) uint8 of 1, 3 or 4 channels.

    Raises:
        UserError: for another number of channels.
    """
    if image.shape[-1] not in (1, 3, 4):
        raise UserError(f"A picture has 1, 3 or 4 channels, not {image.shape[-1]}.")
    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def labelled_grid(
    images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, class_names: Sequence[str] = ()
) -> Image.Image:
    """All images in one picture; with labels, one column a class under its name.

    Small images are enlarged by a whole factor, pixels kept sharp.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) int64.
        class_names: one name a class.
    """
    columns = _columns(len(images), labels)
    scale = max(1, -(-SMALLEST_TILE // max(images.shape[1:3])))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    heading = 18 if labels is not None else 0
    rows = max(len(column) for column in columns)
    size = (len(columns) * (width + GAP) + GAP, heading + rows * (height + GAP) + GAP)
    page = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(page)
    for x, column in enumerate(columns):
        left = GAP + x * (width + GAP)
        if labels is not None:
            _write(draw, class_names[labels[column[0]]], left, width, heading)
        for y, index in enumerate(column):
            tile = to_picture(images[index]).resize((width, height), Image.Resampling.NEAREST)
            page.paste(tile, (left, heading + GAP + y * (height + GAP)))
    return page


def _columns(count: int, labels: NDArray[np.int64] | None) -> list[NDArray[np.intp]]:
    if labels is not None:
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]
    across = int(np.ceil(np.sqrt(count)))
    return [np.arange(first, count, across) for first in range(across)]


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, width: int, height: int) -> None:
    font = ImageFont.load_default(size=13)
    while draw.textlength(text, font) > width and len(text) > 1:
        text = text[:-1]
    draw.text((left + width / 2, 2 + height / 2), text, fill="black", font=font, anchor="mm")
