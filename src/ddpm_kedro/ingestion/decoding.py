"""Decode an image file of any kind: bytes to (H, W, C) uint8, or the reason why it is rejected."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError, features

from ddpm_kedro.ingestion.collection import (
    CLIPPED,
    COLOUR,
    SRGB,
    TRANSPARENT,
    UPRIGHT,
    Fit,
    ImageFormat,
    Inspection,
    LabelledImage,
    Original,
    Probe,
    RejectedImageError,
)

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
GREY_MODES = {"1", "L", "LA", "La", "F"}
"""Names of grey images; besides, all names that start with I have more than 8 bits and are grey."""
SIXTEEN_BITS = 2**16 - 1
ORIENTATION = 0x0112
"""Number of the EXIF tag; the values 2 to 8 are mirrored or rotated; 5 to 8 exchange height and width."""
INSPECTED = (256, 256)  # pixels: a large JPEG is inspected at the smallest size that is not below
GREY_TOLERANCE = 4  # grey levels of 255: a colour whose channels differ by more is not grey
WHITE = (255, 255, 255)
OPAQUE = 255  # alpha
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
        turned = _turn_upright(image)
        in_srgb = _in_srgb(image)
        pixels = convert(in_srgb, target)
        treatments = {UPRIGHT: turned, SRGB: in_srgb is not image} | _treatments(image, target)
        return LabelledImage(pixels, label, original._replace(treatments=tuple(filter(treatments.get, treatments))))


def probe(data: bytes) -> Probe:
    """Return size (as it is displayed) and channels of a file, from its header.

    Raises:
        RejectedImageError: if the file is no image.
    """
    with _opened(data, None) as image:
        width, height = image.size
        if width * height <= LARGE and image.getexif().get(ORIENTATION, 1) >= 5:  # rotated by a quarter
            width, height = height, width
        return Probe(height, width, 1 if _is_grey_mode(image) else 3, _is_deep(image))


def inspect(data: bytes) -> Inspection:
    """Look at the pixels of a file; a large JPEG is decoded at a reduced size.

    Raises:
        RejectedImageError: if the file is no image, is damaged, or has more pixels than LARGE.
    """
    with _opened(data, LARGE) as image:
        image.draft(None, INSPECTED)
        _scale_transparency(image)
        image.load()
        return inspect_image(image)


def inspect_image(image: Image.Image) -> Inspection:
    """Look at the pixels of an image that was not converted yet."""
    if _is_deep(image):
        return Inspection(colour=False, bits=_largest_value(image).bit_length())
    return Inspection(_is_colour(image, WHITE))


def original_of(image: Image.Image) -> Original:
    """Return size and kind of an image that was not converted yet."""
    return Original(image.height, image.width, f"{image.format} {image.mode}" if image.format else image.mode)


def convert(image: Image.Image, target: ImageFormat) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of an image in the common format."""
    array = np.asarray(_resize(_with_channels(image, target), target))
    return array[..., None] if array.ndim == 2 else array


def convert_pixels(pixels: NDArray[np.uint8], target: ImageFormat) -> NDArray[np.uint8]:
    """Convert pixels (H, W, C) to the common format."""
    return convert(to_pil(pixels), target)


def to_pil(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels (H, W, C) with 1, 3 or 4 channels as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


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


def _turn_upright(image: Image.Image) -> bool:
    """Turn an image in place as its EXIF data say, and return whether they do; data that cannot be read are ignored."""
    turned = False
    if image.format != "PNG" or image.info:  # else there are no EXIF data
        with suppress(Exception):
            turned = image.getexif().get(ORIENTATION) in range(2, 9)
            ImageOps.exif_transpose(image, in_place=True)
    return turned


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
    image = _in_eight_bits(image, target.value_bits or 16)
    if target.channels != 4 and image.has_transparency_data:
        image = _on_background(image, target.background)
    mode = MODES[target.channels]
    if image.mode != mode and image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _on_background(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return an image without transparency, in RGB."""
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")


def _in_eight_bits(image: Image.Image, value_bits: int) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 8 bits: 2**value_bits - 1 and larger values become 255."""
    if _is_deep(image):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > SIXTEEN_BITS:
            raise RejectedImageError("its values are beyond 16 bits")
        largest = 2**value_bits - 1
        scaled = (np.minimum(values, largest) * 255 + largest // 2) // largest
        grey = Image.fromarray(scaled.astype(np.uint8))
        if (transparent := image.info.get("transparency")) is not None:
            grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return grey
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise RejectedImageError("its values are not between 0 and 1")
        return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    return image


def _treatments(image: Image.Image, target: ImageFormat) -> dict[str, bool]:
    """Return whether the pixels of an image need each treatment."""
    largest = 2 ** (target.value_bits or 16) - 1
    return {
        TRANSPARENT: _is_transparent(image),
        COLOUR: target.channels == 1 and _is_colour(image, target.background),
        CLIPPED: _is_deep(image) and _largest_value(image) > largest,
    }


def _largest_value(image: Image.Image) -> int:
    """Return the largest value of a grey image with more than 8 bits, without the value that means transparent."""
    values = np.asarray(image)
    return int(values.max(where=values != image.info.get("transparency", -1), initial=0))


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey with integers of more than 8 bits."""
    return image.mode.startswith("I")


def _is_grey_mode(image: Image.Image) -> bool:
    return image.mode in GREY_MODES or _is_deep(image)


def _is_colour(image: Image.Image, background: tuple[int, int, int]) -> bool:
    """Return whether any pixel of an image, on a background, is not grey."""
    if _is_grey_mode(image):
        return False
    bands = (_on_background(image, background) if image.has_transparency_data else image.convert("RGB")).split()
    pairs = zip(bands, (*bands[1:], bands[0]), strict=True)
    return any(_extrema(ImageChops.difference(*pair))[1] > GREY_TOLERANCE for pair in pairs)


def _is_transparent(image: Image.Image) -> bool:
    """Return whether any pixel of an image shows a background."""
    if not image.has_transparency_data:
        return False
    if _is_deep(image):
        return bool((np.asarray(image) == image.info["transparency"]).any())
    return _extrema((image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A"))[0] < OPAQUE


def _extrema(band: Image.Image) -> tuple[int, int]:
    least, most = band.getextrema()
    return int(least), int(most)  # type: ignore[arg-type]  # of one band


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
