"""Each source opens as picklable collections whose images are read one by one."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Probe
from ddpm_kedro.ingestion.image_files import ImageFiles
from ddpm_kedro.ingestion.listing import list_files
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.parameters import DatasetParameters
from tests.ingestion import corpus
from tests.ingestion.test_image_files import folder_of, members

FORMAT = ImageFormat(8, 12, 3, "crop", (255, 255, 255), 50_000_000)
FILES = {f"{name}/{number}.png": corpus.picture() for name in "ab" for number in range(2)}


def path_of(source: str, tmp_path: Path) -> Path | None:
    match source:
        case "folder":
            return folder_of(tmp_path / "top", FILES)
        case "archive":
            return members(tmp_path / "top.zip", FILES)
        case "array":
            images = np.stack([corpus.pixels()] * 4)
            np.savez(tmp_path / "top.npz", images=images, labels=[0, 0, 1, 1], class_names=["a", "b"])
            return tmp_path / "top.npz"
    return None


def opened(source: str, tmp_path: Path) -> ImageCollection:
    path = path_of(source, tmp_path)
    given = {"source": source, "download_folder": str(tmp_path), "path": path and str(path)}
    manifest = find_source(source).fetch(DatasetParameters(**given, classes=None, sha256=None))
    images, holdout = find_source(source).open(manifest)
    assert holdout is None
    return images


@pytest.mark.parametrize("source", ["folder", "archive", "array"])
def test_images_of_a_collection_are_probed_and_read(source: str, tmp_path: Path) -> None:
    images = opened(source, tmp_path)
    assert tuple(images.class_names) == ("a", "b")
    assert [images.read(index, FORMAT).label for index in range(len(images))] == [0, 0, 1, 1]
    assert images.probe(3) == Probe(8, 12, 3)
    assert np.array_equal(images.read(3, FORMAT).pixels, corpus.pixels())


@pytest.mark.parametrize("source", ["folder", "archive", "array", "mnist5k"])
def test_a_collection_that_was_read_can_be_pickled(source: str, tmp_path: Path) -> None:
    images = opened(source, tmp_path).take(np.array([1, 2]))
    before = images.read(1, FORMAT)
    copy = pickle.loads(pickle.dumps(images))
    after = copy.read(1, FORMAT)
    assert len(copy) == 2
    assert np.array_equal(after.pixels, before.pixels)
    assert (after.label, copy.name(1)) == (before.label, images.name(1))


def test_one_shard_of_a_long_listing_is_cheap_to_pickle(tmp_path: Path) -> None:
    files = {f"{number:04}.png": b"x" for number in range(2_000)}
    top = folder_of(tmp_path / "top", files)
    images = ImageFiles(top, list_files(top))
    assert len(pickle.dumps(images.take(np.arange(1_990, 2_000)))) < 5_000 < len(pickle.dumps(images))
