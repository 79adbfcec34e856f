"""Decode an image file of any kind: bytes to (H, W, C) uint8, or the reason why it is rejected."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features

from ddpm_kedro.ingestion.collection import Fit, ImageFormat, LabelledImage, Original, Probe, RejectedImageError

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"]
FORMATS += ["AVIF"] if "avif" in features.modules and features.check("avif") else []
FILTER = Image.Resampling.LANCZOS
TRANSPARENCY: dict[Any, Callable[[int], int]] = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda value: value >> 8,
}
"""How Pillow scales the values of PNG files to 8 bits, by its names for the layouts."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for numbers of channels."""
SIXTEEN_BITS = 2**16 - 1
LARGE = 50_000_000  # pixels: the rotation of a larger file is not read, because a PNG must be decoded for it


def decode(data: bytes, target: ImageFormat, label: int = -1) -> LabelledImage:
    """Decode a file: upright, in sRGB, in the common format; a file with several images gives the first one.

    Raises:
        RejectedImageError: if the file is no image or is damaged, whatever it contains.
    """
    with _opened(data, target.max_pixels) as image:
        original = original_of(image)
        image.draft(None, (2 * target.width, 2 * target.height))  # decodes a large JPEG at a smaller size, faster
        _scale_transparency(image)
        image.load()
        return LabelledImage(convert(_in_srgb(_upright(image)), target), label, original)


def probe(data: bytes) -> Probe:
    """Return size (as it is displayed) and channels of a file, from its header.

    Raises:
        RejectedImageError: if the file is no image.
    """
    with _opened(data, None) as image:
        width, height = image.size
        if width * height <= LARGE and image.getexif().get(0x0112, 1) >= 5:  # rotated by a quarter
            width, height = height, width
        grey = image.mode in {"1", "L", "LA", "La", "I", "F"} or image.mode.startswith("I;16")
        return Probe(height, width, 1 if grey else 3)


def original_of(image: Image.Image) -> Original:
    """Return size and kind of an image that was not converted yet."""
    return Original(image.height, image.width, f"{image.format} {image.mode}" if image.format else image.mode)


def convert(image: Image.Image, target: ImageFormat) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of an image in the common format."""
    array = np.asarray(_resize(_with_channels(image, target), target))
    return array[..., None] if array.ndim == 2 else array


def convert_pixels(pixels: NDArray[np.uint8], target: ImageFormat) -> NDArray[np.uint8]:
    """Convert pixels (H, W, C) to the common format."""
    return convert(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), target)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the warnings of Pillow, and let images.max_pixels be the only limit, within the block."""
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
    """Open a file and read its header; any error inside the block is raised as a RejectedImageError."""
    if not data:
        raise RejectedImageError("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise RejectedImageError(f"it has more than {max_pixels:,} pixels (images.max_pixels)")
            yield image
    except (RejectedImageError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow's own limit applies outside of without_warnings
        raise RejectedImageError(f"it has more than {max_pixels or LARGE:,} pixels (images.max_pixels)") from None
    except UnidentifiedImageError:
        raise RejectedImageError("it is no image that can be read") from None
    except Exception as error:
        # Damaged files make Pillow raise errors of many kinds: no list is complete.
        raise RejectedImageError("it is cut short" if "truncated" in str(error) else "it is damaged") from error


def _scale_transparency(image: Image.Image) -> None:
    """Scale the transparent value of a PNG file to 8 bits: Pillow scales only the pixels."""
    tile = getattr(image, "tile", None) if image.format == "PNG" else None
    scale = TRANSPARENCY.get(tile[0].args) if tile else None
    if scale is not None and (value := image.info.get("transparency")) is not None:
        image.info["transparency"] = tuple(map(scale, value)) if isinstance(value, tuple) else scale(value)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image as its EXIF data say; EXIF data that cannot be read are ignored."""
    if image.format != "PNG" or image.info:  # else there are no EXIF data
        with suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert colours from the profile in the file to sRGB; a profile that cannot be read is ignored."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in {"RGB", "RGBA", "CMYK"}:
        return image
    try:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        colours = image.convert("RGB") if alpha else image
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    if converted and alpha:
        converted.putalpha(alpha)
    return converted or image


def _with_channels(image: Image.Image, target: ImageFormat) -> Image.Image:
    """Convert to grey, colour, or colour with transparency."""
    image = _in_eight_bits(image)
    if target.channels != 4 and (image.has_transparency_data):
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (*target.background, 255)), image.convert("RGBA")
        ).convert("RGB")
    mode = MODES[target.channels]
    if image.mode != mode and image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 8 bits."""
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


def _resize(image: Image.Image, target: ImageFormat) -> Image.Image:
    """Resize with an antialiasing filter; an image of the right size stays as it is."""
    size = (target.width, target.height)
    return image if image.size == size else FITS[target.fit](image, size, target)


def _padded(image: Image.Image, size: tuple[int, int], target: ImageFormat) -> Image.Image:
    colour: Any = Image.new("RGBA", (1, 1), (*target.background, 0)).convert(image.mode).getpixel((0, 0))
    return ImageOps.pad(image, size, FILTER, colour)


FITS: dict[Fit, Callable[[Image.Image, tuple[int, int], ImageFormat], Image.Image]] = {
    "crop": lambda image, size, _: ImageOps.fit(image, size, FILTER),
    "pad": _padded,
    "exact": lambda image, size, _: image.resize(size, FILTER),
}
