"""Images that a person gives: converted as ingestion does, with one line that says how."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm_kedro.ingestion.collection import ImageFormat
from ddpm_kedro.ingestion.decoding import decode
from ddpm_kedro.ingestion.given import GivenImage, convert_given, displayed_size
from tests.ingestion import corpus

TARGET = ImageFormat(8, 8, 3, "crop", (255, 255, 255), 50_000_000)


def target(**changes: Any) -> ImageFormat:
    return ImageFormat(**{**vars(TARGET), **changes})


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", corpus.GOOD)
def test_every_file_becomes_what_ingestion_makes_of_it(name: str, channels: int) -> None:
    data = corpus.GOOD[name]()
    given = convert_given(GivenImage(name, data), target(channels=channels))
    assert given.shape == (8, 8, channels)
    assert np.array_equal(given, decode(data, target(channels=channels)).pixels)


@pytest.mark.parametrize(("largest", "top"), [(4_095, 4_095), (1_025, 2_047), (100, 255), (65_535, 65_535)])
def test_a_deep_image_is_scaled_to_the_bits_it_uses(largest: int, top: int) -> None:
    values = np.zeros((8, 8), dtype=np.uint16)
    values[0] = largest
    given = GivenImage("deep.png", corpus.saved(Image.fromarray(values), "PNG"))
    assert convert_given(given, target(channels=1)).max() == round(largest * 255 / top)
    assert convert_given(given, target(channels=1, value_bits=16)).max() == round(largest / 257)


def clear(size: tuple[int, int]) -> bytes:
    return corpus.saved(Image.new("RGBA", size, (200, 10, 10, 0)), "PNG")


@pytest.mark.parametrize(
    ("data", "changes", "line"),
    [
        (corpus.picture(), {}, "(PNG RGB, 12×8): the middle 8×8 becomes 8×8, colour"),
        (
            corpus.on_its_side(),
            {"channels": 1},
            "(JPEG RGB, 8×12): the middle 8×8 becomes 8×8, grey, turned upright (EXIF)",
        ),
        (clear((8, 8)), {}, "(PNG RGBA, 8×8): keeps its size, colour, on 255/255/255 where it is transparent"),
        (clear((8, 8)), {"channels": 4}, "(PNG RGBA, 8×8): keeps its size, colour with transparency"),
        (clear((16, 16)), {"channels": 4}, "(PNG RGBA, 16×16): becomes 8×8, colour with transparency"),
        (corpus.picture(), {"fit": "exact"}, "(PNG RGB, 12×8): is stretched to 8×8, colour"),
        (
            corpus.with_profile("PNG", "RGB", corpus.srgb()),
            {},
            "(PNG RGB, 12×8): the middle 8×8 becomes 8×8, colour, converted to sRGB",
        ),
        (
            corpus.sixteen_bits(),
            {"fit": "pad", "channels": 1, "value_bits": 12},
            "(PNG I;16, 12×8): becomes 8×8 with borders of 255/255/255 where it is too narrow, grey, values above "
            "4,095 clipped",
        ),
    ],
)
def test_the_log_says_how(data: bytes, changes: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    convert_given(GivenImage("in/picture.png", data), target(**changes))
    assert caplog.messages == [f"picture.png {line}."]


def test_the_displayed_size_is_upright() -> None:
    assert displayed_size(GivenImage("a.jpg", corpus.on_its_side())) == (8, 12)
