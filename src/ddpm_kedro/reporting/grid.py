"""Grids: many images in one, with titles."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from ddpm_kedro.errors import UserError
from ddpm_kedro.reporting.fonts import FONT_SIZES, font_for, titles

SMALLEST_TILE = 56
GAP = 4
MARGIN = 76  # pixels on the left, for the title of a row
LINE = 18  # pixels above or below, for the titles of columns
BACKGROUND = "white"


def to_pil(image: NDArray[np.uint8]) -> Image.Image:
    """Convert an image (H, W, C) uint8 with 1, 3 or 4 channels.

    Raises:
        UserError: for another number of channels.
    """
    if image.shape[-1] not in (1, 3, 4):
        raise UserError(f"An image has 1, 3 or 4 channels, not {image.shape[-1]}.")
    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def labelled_grid(
    images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, class_names: Sequence[str] = ()
) -> Image.Image:
    """Arrange images in a grid; with labels, each class fills one or more columns, below its name.

    Args:
        images: pixels (N, H, W, C) uint8.
        labels: classes of the images, (N,) int64.
        class_names: names of the classes.
    """
    classes = np.zeros(len(images), dtype=np.int64) if labels is None else labels
    groups = [np.flatnonzero(classes == label) for label in np.unique(classes)]
    largest = max(len(group) for group in groups)
    columns = math.ceil(math.sqrt(largest / len(groups)))  # columns per class; the grid is about as wide as high
    cells = np.full((-(-largest // columns), len(groups), columns, *images.shape[1:]), 255, dtype=np.uint8)
    for number, group in enumerate(groups):
        rows, places = np.divmod(np.arange(len(group)), columns)
        cells[rows, number, places] = images[group]
    grid = _tile(cells.reshape(-1, *images.shape[1:]), len(groups) * columns)
    if labels is None:
        return grid
    grid = ImageOps.expand(grid, (0, LINE, 0, 0), BACKGROUND)
    names = titles(class_names)
    _write_columns(grid, [names[labels[group[0]]] for group in groups], 0, 2 + LINE / 2)
    return grid


def titled_rows(rows: Sequence[NDArray[np.uint8]], names: Sequence[str], texts: Sequence[str] = ()) -> Image.Image:
    """Arrange images in rows, each with a name on its left.

    Args:
        rows: images of each row, (N, H, W, C) uint8.
        names: names of the rows.
        texts: texts of an additional last line: its name, then one text per column.
    """
    grid = stack([add_title(_tile(row, len(row)), name) for row, name in zip(rows, names, strict=True)])
    if not texts:
        return grid
    grid, middle = ImageOps.expand(grid, (0, 0, 0, LINE), BACKGROUND), grid.height + LINE / 2
    _write(grid, texts[0], (MARGIN / 2, middle), MARGIN)
    _write_columns(grid, texts[1:], MARGIN, middle)
    return grid


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """Paste grids below each other, so that they share the gap between them."""
    size = (max(image.width for image in images), sum(image.height - GAP for image in images) + GAP)
    page, top = Image.new("RGB", size, BACKGROUND), 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height - GAP
    return page


def add_title(image: Image.Image, title: str) -> Image.Image:
    """Add a margin with a title on the left."""
    page = ImageOps.expand(image, (MARGIN, 0, 0, 0), BACKGROUND)
    _write(page, title, (MARGIN / 2, image.height / 2), MARGIN)
    return page


def _tile(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """Arrange images (N, H, W, C) uint8 from left to right; enlarge small ones by a whole factor, pixels kept sharp."""
    scale = max(1, -(-SMALLEST_TILE // max(images.shape[1:3])))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    size = (columns * (width + GAP) + GAP, -(-len(images) // columns) * (height + GAP) + GAP)
    grid = Image.new("RGB", size, BACKGROUND)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        tile = to_pil(image).resize((width, height), Image.Resampling.NEAREST)
        grid.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return grid


def _write_columns(page: Image.Image, texts: Sequence[str], left: int, middle: float) -> None:
    """Write texts side by side, each in the middle of an equal share of the width."""
    width = (page.width - left - GAP) / len(texts)
    for column, text in enumerate(texts):
        _write(page, text, (left + GAP / 2 + (column + 0.5) * width, middle), width - GAP)


def _write(page: Image.Image, text: str, centre: tuple[float, float], width: float) -> None:
    """Write a text; reduce its size if it is too wide, then cut it."""
    draw = ImageDraw.Draw(page)
    fonts = [font_for(text, size) for size in FONT_SIZES]
    font = next((font for font in fonts if draw.textlength(text, font) <= width), fonts[-1])
    whole = text
    while draw.textlength(text, font) > width and len(whole) > 1:
        whole = whole[:-1]
        text = f"{whole}…"
    draw.text(centre, text, fill="black", font=font, anchor="mm")
