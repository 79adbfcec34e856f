"""Probing: which images are inspected, and the format that is chosen from what was found."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm_kedro.ingestion.array_images import InMemoryImages
from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Inspection, LabelledImage, Probe
from ddpm_kedro.ingestion.probing import (
    choose_format,
    describe_format,
    format_parts,
    fractions_at_least,
    probe_source,
)
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.pipelines.data_ingestion.nodes import prepare_images
from tests.conftest import IMAGES, changed
from tests.ingestion import corpus
from tests.ingestion.shards import decode_all
from tests.ingestion.test_image_files import folder_of
from tests.pipelines.test_nodes import DATASET

GREY, DEEP = Probe(8, 8, 1), Probe(8, 8, 1, deep=True)
COLOUR_FILE = Probe(8, 8, 3)


@dataclass
class Fake(ImageCollection):
    """Images with these probes and inspections."""

    probes: list[Probe]
    inspections: list[Inspection]
    inspected: list[int] = field(default_factory=list)
    class_names = ()

    def __len__(self) -> int:
        return len(self.probes)

    def name(self, index: int) -> str:
        return str(index)

    def probe(self, index: int) -> Probe:
        return self.probes[index]

    def inspect(self, index: int) -> Inspection:
        self.inspected.append(index)
        return self.inspections[index]

    def read(self, index: int, target: ImageFormat) -> LabelledImage:
        raise NotImplementedError


def files(in_colour: int, count: int) -> Fake:
    """Return files for colour, of which the last ones are in colour."""
    return Fake([COLOUR_FILE] * count, [Inspection(index >= count - in_colour) for index in range(count)])


def chosen(source: dict[str, Any], **images: Any) -> ImageFormat:
    return choose_format(source["looks"], changed(IMAGES, **images), source["pixels"])


@pytest.mark.parametrize(("in_colour", "count", "channels"), [(0, 10, 1), (1, 10, 3), (4, 100, 1), (5, 100, 3)])
def test_images_become_grey_if_less_than_five_percent_are_in_colour(in_colour: int, count: int, channels: int) -> None:
    source = probe_source(files(in_colour, count))
    assert source["pixels"] == {"inspected": count, "colour": in_colour, "bits": None}
    assert chosen(source).channels == channels
    assert chosen(source, channels=3).channels == 3
    assert chosen(source, background=(255, 0, 0)).channels == 3  # which grey pixels cannot show
    assert choose_format(source["looks"], IMAGES).channels == 3  # an earlier manifest knows no pixels


def test_files_for_grey_images_are_not_inspected_and_count_as_grey() -> None:
    fake = Fake([GREY] * 90 + [COLOUR_FILE] * 10, [Inspection(index % 2 == 0) for index in range(100)])
    source = probe_source(fake)
    assert fake.inspected == list(range(90, 100))
    assert chosen(source).channels == 3  # 5 % of all
    fake.inspections[90] = Inspection(False)
    assert chosen(probe_source(fake)).channels == 1


def test_transparency_of_an_array_is_kept() -> None:
    images = np.full((4, 8, 8, 4), 90, dtype=np.uint8)
    assert chosen(probe_source(InMemoryImages(images))).channels == 4


def test_fewer_large_images_are_inspected() -> None:
    fake = files(0, 300)
    probe_source(fake)
    assert len(fake.inspected) == 256
    large = Fake([Probe(1_024, 4_096, 3)] * 300, fake.inspections)
    probe_source(large)
    assert len(large.inspected) == 32  # of 2**27 pixels together
    assert (large.inspected[0], large.inspected[-1]) == (0, 299)
    huge = Fake([Probe(8_192, 8_192, 3)] * 300, fake.inspections)
    probe_source(huge)
    assert len(huge.inspected) == 16


@pytest.mark.parametrize(("bits", "expected"), [([3, 12, 9], 12), ([2, 3], 8), ([16], 16), ([20], 16), ([], None)])
def test_the_largest_value_tells_the_bits_in_use(bits: list[int], expected: int | None) -> None:
    probes = [DEEP] * len(bits) + [GREY]
    source = probe_source(Fake(probes, [Inspection(False, each) for each in bits]))
    assert chosen(source).value_bits == expected
    assert chosen(source, value_bits=10).value_bits == 10


def test_only_another_conversion_changes_the_fingerprint() -> None:
    """So that the stores of earlier versions stay valid."""
    colour, grey, headers = (probe_source(each) for each in (files(9, 9), files(0, 9), Fake([GREY], [])))
    twelve, sixteen = (probe_source(Fake([DEEP], [Inspection(False, bits)])) for bits in (12, 16))

    def parts(source: dict[str, Any], **images: Any) -> list[str]:
        return format_parts(source["looks"], changed(IMAGES, **images), source["pixels"])

    assert [parts(source) for source in (colour, headers, sixteen)] == [[], [], []]
    assert parts(grey) == ["1 channels"]
    assert parts(grey, channels=1) == parts(grey, channels=3) == []
    assert parts(twelve) == parts(sixteen, value_bits=12) == ["12 bits"]


def test_the_log_says_how_the_format_was_chosen() -> None:
    def lines(collection: ImageCollection, **images: Any) -> list[str]:
        source, parameters = probe_source(collection), changed(IMAGES, **images)
        target = choose_format(source["looks"], parameters, source["pixels"])
        return list(describe_format(target, source["looks"], parameters, source["pixels"]))

    assert lines(files(9, 9)) == ["Images become 8 high and 8 wide, images.channels=3, images.fit=crop."]
    assert lines(files(0, 9))[1:] == ["9 images in files for colour were inspected; all of them are grey."]
    assert lines(files(2, 200))[1:] == ["About 1.0% of the images lose their colour; images.channels=3 keeps it."]
    assert lines(files(2, 200), channels=1)[1:] == []
    assert lines(Fake([DEEP], [Inspection(False, 12)]))[1:] == [
        "The 16-bit images use 12 bits (images.value_bits): 4,095 becomes 255."
    ]
    assert lines(Fake([DEEP], [Inspection(False, 16)]))[1:] == []
    assert lines(Fake([Probe(400, 533, 1)], []))[1:] == [
        "Half of the files have 400 pixels or more on their shorter side (images.size)."
    ]


def test_the_report_tells_what_a_larger_size_would_keep() -> None:
    assert fractions_at_least([[400, 533, 3, 3], [64, 100, 3, 1]]) == {32: 1, 64: 1, 128: 0.75, 256: 0.75, 512: 0}


def rays(number: int, colour: bool = False) -> bytes:
    """A 12-bit radiograph, or a colour photograph of one."""
    if colour:
        return corpus.saved(Image.new("RGB", (8, 8), (200, 90, 90)), "PNG")
    return corpus.saved(Image.fromarray(np.full((8, 8), 2_000 + 20 * number, np.uint16)), "PNG")


def test_twelve_bit_radiographs_with_a_few_in_colour_become_grey(tmp_path: Path) -> None:
    top = folder_of(tmp_path / "rays", {f"{number:03}.png": rays(number, colour=number == 50) for number in range(100)})
    dataset = changed(DATASET, source="folder", path=str(top))
    manifest = find_source("folder").fetch(dataset) | {"source": "folder"}
    assert manifest["pixels"] == {"inspected": 1, "colour": 1, "bits": 12}
    stores = [decode_all(store) for store in prepare_images(manifest, IMAGES)]
    pixels = np.sort(np.concatenate([store.images for store in stores])[:, 0, 0, 0])
    expected = [round((2_000 + 20 * number) * 255 / 4_095) for number in range(100) if number != 50]
    assert pixels.tolist() == sorted([*expected, 123])  # ITU-R 601: 0.299 · 200 + 0.701 · 90
