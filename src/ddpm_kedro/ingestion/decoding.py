"""One picture of any kind of file: bytes to (H, W, C) uint8, or the reason why not."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features

from ddpm_kedro.images.store import Original

Fit = Literal["crop", "pad", "exact"]
FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "JPEG2000",
    "PPM",
    *(["AVIF"] if "avif" in features.modules and features.check("avif") else []),
)
FILTER = Image.Resampling.LANCZOS
TRANSPARENCY: dict[Any, Callable[[int], int]] = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda value: value >> 8,
}
"""How Pillow scales values of PNG files to 8 bits, by its names for the files' layouts."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for numbers of channels."""
SIXTEEN_BITS = 2**16 - 1
LARGE = 50_000_000  # pixels: of a larger file nobody asks how it lies, for a PNG must be decoded to know


class RejectedImageError(Exception):
    """A file that gives no picture, and why, in a few words that are the same for files of the same kind."""


@dataclass(frozen=True)
class Wanted:
    """What every picture of a store becomes.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: 1 grey, 3 colour, 4 colour with transparency.
        fit: of a picture of another shape: cut off what is too long, add borders, or change its shape.
        background: red, green and blue of borders, and behind what is transparent.
        max_pixels: of a file; larger ones are rejected before they are decoded.
    """

    height: int
    width: int
    channels: int
    fit: Fit
    background: tuple[int, int, int]
    max_pixels: int


class Picture(NamedTuple):
    """Pixels (H, W, C) uint8 as they are wanted, and what they were made of."""

    pixels: NDArray[np.uint8]
    original: Original


@dataclass(frozen=True)
class Look:
    """What the head of a file says, without decoding its pixels."""

    height: int
    width: int
    channels: int


def decode(data: bytes, wanted: Wanted) -> Picture:
    """The picture of a file: upright, in sRGB, of the size and channels that are wanted.

    Of several pictures in a file the first is taken.

    Raises:
        RejectedImageError: for whatever a file may hold that is no picture.
    """
    with _opened(data, wanted.max_pixels) as opened:
        original = original_of(opened)
        opened.draft(None, (2 * wanted.width, 2 * wanted.height))  # a large JPEG is decoded smaller, in less time
        _scale_transparency(opened)
        opened.load()
        pixels = as_array(fitted(with_channels(_in_srgb(_upright(opened)), wanted), wanted))
        return Picture(pixels, original)


def original_of(image: Image.Image) -> Original:
    """Before anything is done to it."""
    return Original(image.height, image.width, f"{image.format} {image.mode}" if image.format else image.mode)


def converted(image: NDArray[np.uint8], wanted: Wanted) -> NDArray[np.uint8]:
    """Pixels (H, W, C) of another size or with other channels."""
    opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return as_array(fitted(with_channels(opened, wanted), wanted))


def look(data: bytes) -> Look:
    """Size, as it is shown, and channels.

    Raises:
        RejectedImageError: for what is no picture.
    """
    with _opened(data, None) as opened:
        width, height = opened.size
        if width * height <= LARGE and opened.getexif().get(0x0112, 1) >= 5:  # lies on its side
            width, height = height, width
        grey = opened.mode in {"1", "L", "LA", "La", "I", "F"} or opened.mode.startswith("I;16")
        return Look(height, width, 1 if grey else 3)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Around the reading of many: a picture is taken, or it is not, and images.max_pixels is the only limit."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _opened(data: bytes, max_pixels: int | None) -> Iterator[Image.Image]:
    """A file whose head is read; whatever goes wrong inside of the block becomes a RejectedImageError."""
    if not data:
        raise RejectedImageError("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise RejectedImageError(f"it has more than {max_pixels:,} pixels (images.max_pixels)")
            yield image
    except (RejectedImageError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow has a limit of its own, where it is left
        raise RejectedImageError(f"it has more than {max_pixels or LARGE:,} pixels (images.max_pixels)") from None
    except UnidentifiedImageError:
        raise RejectedImageError("it is no picture that can be read") from None
    except Exception as error:
        # Pillow's readers raise whatever the structures of their formats lead to: no list of kinds is complete.
        raise RejectedImageError("it is cut short" if "truncated" in str(error) else "it is damaged") from error


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a PNG file to 8 bits, as Pillow scales the pixels, but not this value."""
    tile = getattr(image, "tile", None) if image.format == "PNG" else None
    scale = TRANSPARENCY.get(tile[0].args) if tile else None
    if scale is not None and (value := image.info.get("transparency")) is not None:
        image.info["transparency"] = tuple(map(scale, value)) if isinstance(value, tuple) else scale(value)


def _upright(image: Image.Image) -> Image.Image:
    """As a viewer would show it; what cannot be read about its orientation is left alone."""
    if image.format == "PNG" and not image.info:  # there is nothing to look for
        return image
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:
        return image
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Colours from the profile in the file to sRGB; a profile that cannot be read counts as none."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in {"RGB", "RGBA", "CMYK"}:
        return image
    try:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        colours = image.convert("RGB") if alpha else image
        own, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(colours, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    if converted is None:
        return image
    if alpha:
        converted.putalpha(alpha)
    return converted


def with_channels(image: Image.Image, wanted: Wanted) -> Image.Image:
    """Grey, colour, or colour with transparency."""
    image = _in_eight_bits(image)
    if wanted.channels != 4 and (image.has_transparency_data):
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (*wanted.background, 255)), image.convert("RGBA")
        ).convert("RGB")
    mode = MODES[wanted.channels]
    if image.mode != mode and image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits to 8, the whole range to the whole range."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > SIXTEEN_BITS:
            raise RejectedImageError("its values are beyond 16 bits")
        grey = Image.fromarray(((values * 255 + SIXTEEN_BITS // 2) // SIXTEEN_BITS).astype(np.uint8))
        if (transparent := image.info.get("transparency")) is not None:
            grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return grey
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise RejectedImageError("its values are not between 0 and 1")
        return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    return image


def fitted(image: Image.Image, wanted: Wanted) -> Image.Image:
    """Of the size that is wanted, with an antialiasing filter; untouched where it has it."""
    size = (wanted.width, wanted.height)
    return image if image.size == size else FITS[wanted.fit](image, size, wanted)


def as_array(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, C) uint8."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _padded(image: Image.Image, size: tuple[int, int], wanted: Wanted) -> Image.Image:
    colour: Any = {
        "L": Image.new("RGB", (1, 1), wanted.background).convert("L").getpixel((0, 0)),
        "RGB": wanted.background,
        "RGBA": (*wanted.background, 0),
    }[image.mode]
    return ImageOps.pad(image, size, FILTER, colour)


FITS: dict[Fit, Callable[[Image.Image, tuple[int, int], Wanted], Image.Image]] = {
    "crop": lambda image, size, _: ImageOps.fit(image, size, FILTER),
    "pad": _padded,
    "exact": lambda image, size, _: image.resize(size, FILTER),
}
