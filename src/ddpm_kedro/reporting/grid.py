"""Pictures of many images at once."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ddpm_kedro.errors import UserError
from ddpm_kedro.reporting.fonts import FONT_SIZES, font_for, titles

SMALLEST_TILE = 56
GAP = 4
SIDE = 76  # pixels for what stands before a row
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
    """All images in one picture; with labels, those of a class under its name, in one column or several.

    Small images are enlarged by a whole factor, pixels kept sharp.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) int64.
        class_names: one name a class.
    """
    groups = _groups(len(images), labels)
    across = _across(groups)
    scale = max(1, -(-SMALLEST_TILE // max(images.shape[1:3])))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    heading = 18 if labels is not None else 0
    rows = max(-(-len(group) // across) for group in groups)
    size = (len(groups) * across * (width + GAP) + GAP, heading + rows * (height + GAP) + GAP)
    page = Image.new("RGB", size, BACKGROUND)
    draw, headings = ImageDraw.Draw(page), titles(class_names)
    for number, group in enumerate(groups):
        left = GAP + number * across * (width + GAP)
        if labels is not None:
            _write(draw, headings[labels[group[0]]], left, across * (width + GAP) - GAP, heading)
        for place, index in enumerate(group):
            tile = to_picture(images[index]).resize((width, height), Image.Resampling.NEAREST)
            y, x = divmod(place, across)
            page.paste(tile, (left + x * (width + GAP), heading + GAP + y * (height + GAP)))
    return page


def labelled_pairs(
    above: NDArray[np.uint8], below: NDArray[np.uint8], names: tuple[str, str, str], texts: Sequence[str]
) -> Image.Image:
    """Images in two rows, one pair a column, with a text under each pair.

    Args:
        above, below: (N, H, W, C) uint8.
        names: of the rows and of the texts, written before them.
        texts: one a pair.
    """
    scale = max(1, -(-SMALLEST_TILE // max(above.shape[1:3])))
    height, width = above.shape[1] * scale, above.shape[2] * scale
    side, line = SIDE, 18
    page = Image.new("RGB", (side + len(above) * (width + GAP) + GAP, 2 * (height + GAP) + GAP + line), BACKGROUND)
    draw = ImageDraw.Draw(page)
    for row, images in enumerate((above, below)):
        top = GAP + row * (height + GAP)
        _write(draw, names[row], 0, side, 2 * top + height - 4)
        for column, image in enumerate(images):
            tile = to_picture(image).resize((width, height), Image.Resampling.NEAREST)
            page.paste(tile, (side + GAP + column * (width + GAP), top))
    for column, text in enumerate((names[2], *texts)):
        left, wide = (0, side) if column == 0 else (side + GAP + (column - 1) * (width + GAP), width)
        _write(draw, text, left, wide, 2 * (2 * (height + GAP) + GAP) + line - 4)
    return page


def rows_of_tiles(rows: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> Image.Image:
    """Rows of small images, each with a name before it.

    Args:
        rows: each (N, H, W, C) uint8.
        names: one a row.
    """
    _, height, width, _ = rows[0].shape
    scale = max(1, -(-SMALLEST_TILE // max(height, width)))
    tiles = [
        [to_picture(image).resize((width * scale, height * scale), Image.Resampling.NEAREST) for image in row]
        for row in rows
    ]
    across = len(tiles[0]) * (width * scale + GAP) - GAP
    strips = []
    for row in tiles:
        strip = Image.new("RGB", (across, height * scale), BACKGROUND)
        for column, tile in enumerate(row):
            strip.paste(tile, (column * (width * scale + GAP), 0))
        strips.append(strip)
    return stacked(strips, names)


def stacked(pictures: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Pictures one below the other, each with a title before it."""
    width = SIDE + max(picture.width for picture in pictures) + 2 * GAP
    page = Image.new("RGB", (width, sum(picture.height + GAP for picture in pictures) + GAP), BACKGROUND)
    draw, top = ImageDraw.Draw(page), GAP
    for picture, title in zip(pictures, titles, strict=True):
        _write(draw, title, 0, SIDE, 2 * top + picture.height - 4)
        page.paste(picture, (SIDE + GAP, top))
        top += picture.height + GAP
    return page


def _groups(count: int, labels: NDArray[np.int64] | None) -> list[NDArray[np.intp]]:
    """The images of each class; without classes, all of them."""
    return [np.arange(count)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _across(groups: list[NDArray[np.intp]]) -> int:
    """Columns of each group, so that there are about as many of all groups as there are rows."""
    return math.ceil(math.sqrt(max(len(group) for group in groups) / len(groups)))


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, width: int, height: int) -> None:
    """In the middle, and smaller where it is too long; cut where that is not enough."""
    fonts = [font_for(text, size) for size in FONT_SIZES]
    font = next((font for font in fonts if draw.textlength(text, font) <= width), fonts[-1])
    whole = text
    while draw.textlength(text, font) > width and len(whole) > 1:
        whole = whole[:-1]
        text = f"{whole}…"
    draw.text((left + width / 2, 2 + height / 2), text, fill="black", font=font, anchor="mm")
