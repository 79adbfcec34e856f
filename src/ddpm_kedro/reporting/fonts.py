"""Fonts for the titles of figures; a class name that no font can write is replaced by its number."""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

FONT_SIZES = (13, 12, 11, 10, 9)
DEJAVU, NO_LETTER = "mpl-data/fonts/ttf/DejaVuSans.ttf", "\uffff"


def titles(names: Sequence[str]) -> list[str]:
    """Return the title of each class in a grid: its name, or its number if no font has all its letters."""
    return [f"#{index}" if _font_file(name) is None else name for index, name in enumerate(names)]


def legend(names: Sequence[str]) -> str:
    """Return the classes that grids show by number, with their names; empty if grids show all names."""
    shown = zip(titles(names), names, strict=True)
    return ", ".join(f"{title} {name}" for title, name in shown if title != name)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font with all letters of a text: Pillow's own if possible, else DejaVu Sans."""
    return _open(_font_file(text) or "", size)


@lru_cache(maxsize=4096)
def _font_file(text: str) -> str | None:
    """Return the file of a font with all letters of a text, "" for Pillow's own; None if no font has them."""
    return next((file for file in ("", *_dejavu()) if all(_has(file, letter) for letter in set(text))), None)


@cache
def _dejavu() -> list[str]:
    """Return the file of DejaVu Sans, a part of matplotlib, which mlxtend depends on."""
    spec = find_spec("matplotlib")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return [str(file) for folder in folders if (file := Path(folder, DEJAVU)).is_file()]


@cache
def _has(file: str, letter: str) -> bool:
    font = _open(file, FONT_SIZES[0])
    masks = [(mask.size, bytes(mask)) for mask in (font.getmask(each) for each in (letter, NO_LETTER))]
    return letter.isspace() or masks[0] != masks[1]


@cache
def _open(file: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
