"""Decoding: any file becomes an array of the common format, or is rejected with a reason."""

import re
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ddpm_kedro.ingestion import decoding
from ddpm_kedro.ingestion.collection import (
    CLIPPED,
    COLOUR,
    SRGB,
    TRANSPARENT,
    UPRIGHT,
    ImageFormat,
    Inspection,
    Probe,
    RejectedImageError,
)
from ddpm_kedro.ingestion.decoding import convert_pixels, inspect, probe
from tests.ingestion import corpus

WHITE = (255, 255, 255)
AS_IT_IS = ImageFormat(8, 12, 3, "crop", WHITE, 50_000_000)


def target(height: int = 8, width: int = 12, channels: int = 3, fit: str = "crop", **more: object) -> ImageFormat:
    return ImageFormat(**{**vars(AS_IT_IS), "height": height, "width": width, "channels": channels, "fit": fit, **more})


def decode(data: bytes, target: ImageFormat) -> NDArray[np.uint8]:
    return decoding.decode(data, target).pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", corpus.GOOD)
def test_unusual_files_are_decoded(name: str, channels: int) -> None:
    image = decode(corpus.GOOD[name](), target(channels=channels))
    assert (image.shape, image.dtype) == ((8, 12, channels), np.uint8)


@pytest.mark.parametrize("name", corpus.BAD)
def test_bad_files_are_rejected_with_a_reason(name: str) -> None:
    make, pattern = corpus.BAD[name]
    with pytest.raises(RejectedImageError) as why:
        decode(make(), AS_IT_IS)
    assert re.fullmatch(f"({pattern}).*", str(why.value))


def test_there_are_sixty_kinds_of_bad_files() -> None:
    """With those that only a file system can hold, which the tests of listings write."""
    assert len(corpus.BAD) + len(corpus.SPECIAL) >= 60


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossless_files_keep_every_value(kind: str, mode: str) -> None:
    pixels = corpus.pixels(1 if mode == "L" else 3)
    if kind == "GIF" and mode == "RGB":
        pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)  # fits a palette
    height, width = pixels.shape[:2]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = corpus.saved(Image.fromarray(pixels), kind, **options)
    image = decode(data, target(height, width, 1 if mode == "L" else 3))
    assert np.array_equal(image.squeeze(), pixels)


def test_sixteen_bits_become_eight_over_the_whole_range() -> None:
    image = decode(corpus.sixteen_bits(), target(channels=1))
    assert np.array_equal(image.ravel(), np.round(np.linspace(0, 65535, 96).astype(np.uint16) / 257).astype(np.uint8))


@pytest.mark.parametrize(("bits", "largest"), [(12, 4_095), (8, 255), (16, 65_535)])
def test_sixteen_bits_are_scaled_to_the_bits_in_use(bits: int, largest: int) -> None:
    values = np.array([[0, 1, largest // 2, largest, min(largest + 1, 65_535), 65_535]], dtype=np.uint16)
    decoded = decoding.decode(corpus.saved(Image.fromarray(values), "PNG"), target(1, 6, 1, value_bits=bits))
    expected = np.round(np.minimum(values[0].astype(float), largest) * 255 / largest)
    assert decoded.pixels.ravel().tolist() == expected.tolist()
    assert decoded.original is not None
    assert decoded.original.treatments == ((CLIPPED,) if bits < 16 else ())


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return corpus.picture("JPEG", exif=exif.tobytes())


def in_part(alpha: int, hidden: tuple[int, int, int]) -> bytes:
    """Grey on the left; a colour of this opacity on the right."""
    pixels = np.full((8, 12, 4), (90, 90, 90, 255), dtype=np.uint8)
    pixels[:, 6:] = (*hidden, alpha)
    return corpus.saved(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(
    ("data", "channels", "treatments"),
    [
        (corpus.picture(), 3, ()),
        (corpus.picture(), 1, (COLOUR,)),
        (corpus.picture(mode="L"), 1, ()),
        (corpus.saved(Image.new("RGB", corpus.SIZE, (90, 92, 94)), "PNG"), 1, ()),
        (corpus.saved(Image.new("RGB", corpus.SIZE, (90, 92, 95)), "PNG"), 1, (COLOUR,)),
        (in_part(0, (250, 10, 10)), 1, (TRANSPARENT,)),
        (in_part(255, (250, 10, 10)), 1, (COLOUR,)),
        (in_part(255, (90, 90, 90)), 4, ()),
        (in_part(254, (90, 90, 90)), 4, (TRANSPARENT,)),
        (turned(), 3, (UPRIGHT,)),
        (corpus.saved(Image.new("P", corpus.SIZE, 0), "PNG", transparency=0), 3, (TRANSPARENT,)),
        (corpus.saved(Image.new("P", corpus.SIZE, 0), "PNG", transparency=1), 3, ()),
        (corpus.picture(exif=b"Exif\0\0" + corpus.noise(60)), 3, ()),
        (corpus.with_profile("PNG", "RGB", corpus.srgb()), 3, (SRGB,)),
        (corpus.with_profile("PNG", "RGB", corpus.noise(400)), 3, ()),
    ],
    ids=range(15),
)
def test_the_treatments_of_a_file_are_returned(data: bytes, channels: int, treatments: tuple[str, ...]) -> None:
    original = decoding.decode(data, target(channels=channels)).original
    assert original is not None
    assert original.treatments == treatments


def test_a_coloured_background_is_a_colour() -> None:
    data, red = in_part(0, (90, 90, 90)), (255, 0, 0)
    original = decoding.decode(data, target(channels=1, background=red)).original
    assert original is not None
    assert original.treatments == (TRANSPARENT, COLOUR)


def transparent_above(largest: int) -> bytes:
    """16 bits, up to ``largest`` beside the value that means transparent."""
    values = np.array([[0, largest, 65_535]], dtype=np.uint16)
    return corpus.saved(Image.fromarray(values), "PNG", transparency=65_535)


def test_the_transparent_value_is_not_clipped() -> None:
    decoded = decoding.decode(transparent_above(2_047), target(1, 3, 1, value_bits=11, background=(9, 9, 9)))
    assert decoded.pixels.ravel().tolist() == [0, 255, 9]
    assert decoded.original is not None
    assert decoded.original.treatments == (TRANSPARENT,)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (corpus.picture(), Inspection(colour=True)),
        (corpus.picture(mode="L"), Inspection(colour=False)),
        (corpus.saved(Image.fromarray(corpus.pixels(1)).convert("RGB"), "JPEG"), Inspection(colour=False)),
        (corpus.saved(Image.fromarray(corpus.pixels(1)).convert("RGB"), "WEBP"), Inspection(colour=False)),
        (corpus.saved(Image.fromarray(corpus.pixels(1)).convert("P"), "PNG"), Inspection(colour=False)),
        (in_part(0, (250, 10, 10)), Inspection(colour=False)),
        (corpus.sixteen_bits(), Inspection(colour=False, bits=16)),
        (corpus.saved(Image.fromarray(np.full((2, 2), 2_048, np.uint16)), "PNG"), Inspection(False, 12)),
        (corpus.saved(Image.fromarray(np.full((2, 2), 2_047, np.uint16)), "PNG"), Inspection(False, 11)),
        (transparent_above(2_047), Inspection(False, 11)),
    ],
    ids=range(10),
)
def test_inspection_finds_colour_and_used_bits(data: bytes, found: Inspection) -> None:
    assert inspect(data) == found


def test_floats_become_eight_bits() -> None:
    image = decode(corpus.floats(1.0), target(channels=1))
    assert np.abs(image.ravel() - np.linspace(0, 255, 96)).max() <= 0.5


def test_rotated_images_are_turned_upright() -> None:
    tall = np.zeros((12, 8, 3), dtype=np.uint8)
    tall[:6] = 255  # bright above, as it is shown
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by a quarter
    data = corpus.saved(Image.fromarray(np.rot90(tall).copy()), "PNG", exif=exif.tobytes())
    assert (probe(data).height, probe(data).width) == (12, 8)
    assert np.array_equal(decode(data, target(12, 8)), tall)


def test_transparent_pixels_show_the_background() -> None:
    pixels = np.zeros((8, 12, 4), dtype=np.uint8)
    pixels[:, 6:] = (10, 20, 30, 255)
    data = corpus.saved(Image.fromarray(pixels), "PNG")
    image = decode(data, target(background=(200, 100, 50)))
    assert image[0, 0].tolist() == [200, 100, 50]
    assert image[0, -1].tolist() == [10, 20, 30]
    kept = decode(data, target(channels=4))
    assert np.array_equal(kept, pixels)


@pytest.mark.parametrize(("channels", "above", "below"), [(1, [255], [39]), (3, [255] * 3, [39] * 3)])
def test_transparent_sixteen_bit_grey_shows_the_background(channels: int, above: list[int], below: list[int]) -> None:
    values = np.full((8, 12), 10_000, dtype=np.uint16)
    values[:4] = 40_000
    data = corpus.saved(Image.fromarray(values), "PNG", transparency=40_000)
    image = decode(data, target(channels=channels))
    assert (image[0, 0].tolist(), image[-1, -1].tolist()) == (above, below)
    assert decode(data, target(channels=4))[[0, -1], 0, 3].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("depth", "colour", "rows", "transparent"),
    [
        (2, 0, (b"\x55", b"\xaa"), (1,)),
        (4, 0, (b"\x55\x55", b"\xaa\xaa"), (5,)),
        (8, 0, (b"\x55" * 4, b"\xaa" * 4), (0x55,)),
        (8, 2, (b"\x55\x10\x20" * 4, b"\xaa" * 12), (0x55, 0x10, 0x20)),
        (16, 2, (b"\x9c\x40\x03\xe8\x07\xd0" * 4, b"\xaa\xaa" * 12), (40_000, 1_000, 2_000)),
    ],
    ids=["2 bits grey", "4 bits grey", "8 bits grey", "8 bits colour", "16 bits colour"],
)
def test_the_transparent_value_of_a_png_is_scaled_from_its_depth(
    depth: int, colour: int, rows: tuple[bytes, bytes], transparent: tuple[int, ...]
) -> None:
    chunks = (
        corpus.chunk(b"tRNS", b"".join(value.to_bytes(2, "big") for value in transparent)),
        corpus.chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
    )
    image = decode(corpus.png(4, 2, *chunks, depth=depth, colour=colour), target(2, 4, background=(9, 8, 7)))
    assert image[0, 0].tolist() == [9, 8, 7]
    assert image[1, 0].tolist() == [0xAA] * 3


def test_colours_are_converted_from_the_profile() -> None:
    """One whose red is sRGB's blue, and its blue sRGB's red."""
    swapped = corpus.srgb().replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    red = Image.new("RGB", corpus.SIZE, (255, 0, 0))
    same, other = (
        decode(corpus.saved(red, "PNG", icc_profile=profile), AS_IT_IS) for profile in (corpus.srgb(), swapped)
    )
    assert same[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)
    assert other[0, 0].tolist() == pytest.approx([0, 0, 255], abs=2)


def test_the_first_frame_of_an_animation_is_used() -> None:
    assert decode(corpus.gif(5), target(channels=1)).max() == 0


def striped(height: int, width: int) -> bytes:
    """Red on the left, green in the middle half, blue on the right."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    quarter = width // 4
    pixels[:, :quarter, 0] = pixels[:, quarter:-quarter, 1] = pixels[:, -quarter:, 2] = 255
    return corpus.saved(Image.fromarray(pixels), "PNG")


def test_crop_pad_and_exact_fit_as_documented() -> None:
    data = striped(32, 64)
    cropped, padded, exact = (decode(data, target(16, 16, fit=fit)) for fit in ("crop", "pad", "exact"))
    assert cropped[8, 1:-1, 1].min() > 250  # the middle half alone
    assert padded[0, 8].tolist() == [255, 255, 255]
    assert padded[8, 1, 0] > 250
    assert padded[8, -2, 2] > 250
    assert exact[1, 1, 0] > 250
    assert exact[-2, -2, 2] > 250


def test_downscaling_does_not_alias() -> None:
    """Fine stripes become grey, not stripes."""
    pixels = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    image = decode(corpus.saved(Image.fromarray(pixels), "PNG"), target(8, 8, 1))
    assert np.abs(image.astype(int) - 127).max() < 30


def test_a_large_jpeg_is_like_the_same_png() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((1600, 1200), 3)
    jpeg, png = (corpus.saved(smooth, kind, **more) for kind, more in (("JPEG", {"quality": 95}), ("PNG", {})))
    apart = np.abs(decode(jpeg, target(32, 32)).astype(int) - decode(png, target(32, 32)))
    assert apart.mean() < 3


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_arrays_are_converted_like_files(channels: int) -> None:
    pixels = corpus.pixels(channels).reshape(8, 12, channels)
    assert np.array_equal(convert_pixels(pixels, target(channels=channels)), pixels)
    assert convert_pixels(pixels, target(4, 6, 4 - channels)).shape == (4, 6, 4 - channels)


def test_probing_returns_size_and_channels() -> None:
    assert probe(corpus.picture()) == Probe(8, 12, 3)
    assert probe(corpus.picture(mode="LA")) == Probe(8, 12, 1)
    assert probe(corpus.sixteen_bits()) == Probe(8, 12, 1, deep=True)
    with pytest.raises(RejectedImageError, match="no image"):
        probe(b"text")
