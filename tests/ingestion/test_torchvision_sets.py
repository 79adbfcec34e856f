"""Datasets of torchvision whose images have many sizes."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.lazy_store import split_source
from ddpm_kedro.ingestion.registry import SOURCES, find_source
from ddpm_kedro.ingestion.torchvision_sets import TorchvisionFiles, open_once
from ddpm_kedro.parameters import DatasetParameters
from tests.conftest import IMAGES, changed

SETS = {name: source for name, source in SOURCES.items() if isinstance(source, TorchvisionFiles)}


class Flowers:
    """Like torchvision's; the colour of an image is its index."""

    classes = ("rose", ("tulip", "tulipa"))

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        self.count = {"train": 30, "test": 10}[split]
        if download:
            (Path(root) / "pictures.zip").write_bytes(b"x" * 100)
        elif not (Path(root) / "pictures.zip").is_file():
            raise RuntimeError("Dataset not found.")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        if row == 7:
            raise OSError("broken")
        return Image.new("RGB", (40 + row, 70 - row), (row, 2 * row, 3 * row)), row % 2


@pytest.fixture(autouse=True)
def _flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    open_once.cache_clear()
    monkeypatch.setattr(datasets, "Flowers102", Flowers)


def dataset(tmp_path: Path, source: str = "flowers102") -> DatasetParameters:
    return DatasetParameters(source=source, download_folder=str(tmp_path), path=None, sha256=None, classes=None)


def made(source: Any, manifest: dict[str, Any], **images: Any) -> list[Any]:
    [training, holdout] = split_source(source, manifest, changed(IMAGES, **images))
    return [[shard.decode() for shard in part()] for part in (training, holdout)]


@pytest.mark.parametrize("name", list(SETS))
def test_the_options_are_those_of_torchvision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    kind = getattr(datasets, SETS[name].dataset)
    for options in (SETS[name].train, SETS[name].test or ()):
        inspect.signature(kind).bind("root", **dict(options))
    assert callable(kind.__getitem__)


def test_images_of_all_sizes_get_one_size_and_keep_their_labels(tmp_path: Path) -> None:
    source = find_source("flowers102")
    manifest = source.fetch(dataset(tmp_path))
    assert manifest["class_names"] == ["rose", "tulip"]
    [[training], [holdout]] = made(source, manifest)
    assert training.images.shape == (29, 48, 48, 3)  # half of them have sides of 48 at least
    assert holdout.images.shape == (9, 48, 48, 3)
    assert training.rejected == (("Flowers102 7", "it is damaged"),)
    for image, label, name in zip(training.images, training.labels, training.names, strict=True):
        row = int(name.split()[1])
        assert set(image.reshape(-1, 3).T[0]) == {row}
        assert label == row % 2
    [[grey], _] = made(source, manifest, size=(8, 12), channels=1)
    assert grey.images.shape == (29, 8, 12, 1)
    source.check(manifest)
    (tmp_path / "flowers102/more.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="changed while they were read"):
        source.check(manifest)


def test_a_part_is_held_out_without_a_test_split(tmp_path: Path) -> None:
    source = TorchvisionFiles("Flowers102", test=None)
    parts = made(source, source.fetch(dataset(tmp_path)))
    names = [name for part in parts for shard in part for name in (*shard.names, *(bad for bad, _ in shard.rejected))]
    assert sorted(names) == sorted(f"Flowers102 {row}" for row in range(30))
    assert sum(len(shard.images) for shard in parts[1]) in {2, 3}


def test_files_to_download_by_hand_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"ImageNet is not there: .*ILSVRC2012_devkit.* Files go to .*imagenet"):
        find_source("imagenet").fetch(dataset(tmp_path, "imagenet"))


def test_a_failed_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Error downloading:  no route")

    monkeypatch.setattr(Flowers, "__init__", broken)
    with pytest.raises(UserError, match="Flowers102 is not there: Error downloading: no route Files go to"):
        find_source("flowers102").fetch(dataset(tmp_path))


def test_rows_are_spread_over_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.lazy_store.SHARD_BYTES", 8 * 8 * 3 * 10)
    source = find_source("flowers102")
    [training, _] = made(source, source.fetch(dataset(tmp_path)), size=8)
    assert [len(shard.images) for shard in training] == [9, 10, 10]
    assert np.concatenate([shard.images[:, 0, 0, 0] for shard in training]).tolist() == [*range(7), *range(8, 30)]
