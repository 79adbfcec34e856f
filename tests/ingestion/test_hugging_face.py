"""Datasets in Hugging Face's format, on this machine."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import datasets
from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion import hugging_face
from ddpm_kedro.ingestion.collection import RejectedImageError
from ddpm_kedro.ingestion.lazy_store import split_source
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.parameters import DatasetParameters
from tests.conftest import IMAGES, changed
from tests.ingestion import corpus


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> None:
    hugging_face.load_splits.cache_clear()
    hugging_face.open_split.cache_clear()


def flowers(count: int, **more: Any) -> datasets.Dataset:
    """Return images whose colour is their index, with the classes even and odd."""
    columns = {
        "number": list(range(count)),
        "picture": [Image.new("RGB", (20, 10), (row, 0, 0)) for row in range(count)],
        "kind": [row % 2 for row in range(count)],
    } | more
    kinds = {
        "number": datasets.Value("int64"),
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=["even", "odd"]),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features({name: kinds[name] for name in columns}))


def kept(data: Any, path: Path) -> Path:
    data.to_parquet(str(path)) if path.suffix == ".parquet" else data.save_to_disk(str(path))
    return path


def dataset(path: Path | str, tmp_path: Path, classes: bool | None = None) -> DatasetParameters:
    given = {"download_folder": str(tmp_path / "down"), "path": str(path), "sha256": None, "classes": classes}
    return DatasetParameters(source="huggingface", **given)


def made(path: Path, tmp_path: Path, classes: bool | None = None, **images: Any) -> tuple[dict[str, Any], list[Any]]:
    source = find_source("huggingface")
    manifest = source.fetch(dataset(path, tmp_path, classes))
    parts = split_source(source, manifest, changed(IMAGES, **images))
    source.check(manifest)
    return manifest, [[shard.decode() for shard in part()] for part in parts]


def rows(shards: list[Any]) -> list[int]:
    return [int(image[0, 0, 0]) for shard in shards for image in shard.images]


@pytest.mark.parametrize("name", ["flowers.parquet", "flowers"])
def test_each_image_with_its_class_is_in_training_or_holdout(name: str, tmp_path: Path) -> None:
    manifest, [training, holdout] = made(kept(flowers(40), tmp_path / name), tmp_path)
    assert manifest["class_names"] == ["even", "odd"]
    assert sorted(rows(training) + rows(holdout)) == list(range(40))
    assert len(rows(holdout)) == 4
    for shard in (*training, *holdout):
        assert shard.images.shape[1:] == (10, 20, 3)
        assert list(shard.labels) == [int(image[0, 0, 0]) % 2 for image in shard.images]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_test_or_validation_split_is_the_holdout(split: str, tmp_path: Path) -> None:
    both = datasets.DatasetDict({split: flowers(6), "train": flowers(12)})
    _, [training, holdout] = made(kept(both, tmp_path / "both"), tmp_path)
    assert (rows(training), rows(holdout)) == (list(range(12)), list(range(6)))


def test_columns_that_may_hold_classes_but_are_not_used_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = find_source("huggingface")
    source.fetch(dataset(kept(flowers(9).remove_columns("kind"), tmp_path / "numbers"), tmp_path))
    assert "numbers has no column of classes (ClassLabel); not used: number." in caplog.text


def test_a_test_split_with_secret_labels_is_not_the_holdout(tmp_path: Path) -> None:
    splits = {"train": flowers(40), "test": flowers(6, kind=[-1] * 6)}
    _, [training, holdout] = made(kept(datasets.DatasetDict(splits), tmp_path / "secret"), tmp_path)
    assert sorted(rows(training) + rows(holdout)) == list(range(40))
    splits["validation"] = flowers(5)
    _, [training, holdout] = made(kept(datasets.DatasetDict(splits), tmp_path / "known"), tmp_path)
    assert (rows(training), rows(holdout)) == (list(range(40)), list(range(5)))


def test_images_without_a_class_are_used_without_classes(tmp_path: Path) -> None:
    path = kept(flowers(40, kind=[None, -1, *[1] * 38]), tmp_path / "flowers")
    _, [training, holdout] = made(path, tmp_path, classes=False)
    assert sorted(rows(training) + rows(holdout)) == list(range(40))


def test_images_are_converted_without_classes(tmp_path: Path) -> None:
    path = kept(flowers(20), tmp_path / "flowers.parquet")
    manifest, [[shard], _] = made(path, tmp_path, classes=False, size=(10, 14), channels=1)
    assert manifest["class_names"] == []
    assert shard.images.shape[1:] == (10, 14, 1)


def test_rows_without_an_image_or_class_are_rejected(tmp_path: Path) -> None:
    cells = [{"bytes": corpus.picture(), "path": None} for _ in range(20)]
    cells[3], cells[4] = {"bytes": b"no picture", "path": None}, None
    data = flowers(20, picture=cells, kind=[None, *[1] * 19]).remove_columns("number")
    _, parts = made(kept(data, tmp_path / "bad"), tmp_path)
    rejected = {name: why for part in parts for shard in part for name, why in shard.rejected}
    assert rejected == {
        "train 0": "it has no class",
        "train 3": "it is no image that can be read",
        "train 4": "the file is empty",
    }


def test_a_missing_file_beside_the_dataset_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RejectedImageError, match="it cannot be read"):
        hugging_face._content({"bytes": None, "path": str(tmp_path / "gone.png")})


def test_datasets_that_cannot_be_used_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_source("huggingface")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for path, message in {
        kept(flowers(9).remove_columns("picture"), tmp_path / "bare"): "has no column of images, only number, kind",
        tmp_path / "gone": "could not be loaded: ",
    }.items():
        with pytest.raises(UserError, match=message):
            source.fetch(dataset(path, tmp_path))
    bare = kept(flowers(9).remove_columns("kind"), tmp_path / "without")
    with pytest.raises(UserError, match=r"dataset.classes is true, but .* has no column of classes"):
        source.fetch(dataset(bare, tmp_path, classes=True))
    with pytest.raises(UserError, match=r"needs dataset.path: a name of the hub"):
        source.fetch(changed(dataset(bare, tmp_path), path=None))
    hugging_face.load_splits.cache_clear()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets: pip install"):
        source.fetch(dataset(bare, tmp_path))


def test_shards_have_a_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.lazy_store.SHARD_BYTES", 10 * 20 * 3 * 8)
    _, [training, _] = made(kept(flowers(40), tmp_path / "flowers"), tmp_path)
    assert [len(shard.images) for shard in training] == [8, 8, 8, 8, 4]
    assert np.unique(np.concatenate([shard.labels for shard in training])).tolist() == [0, 1]


def test_a_parquet_file_from_a_url_is_downloaded_without_its_secrets_in_any_file(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    kept(flowers(20), server[1] / "flowers.parquet")
    url = f"{server[0].replace('://', '://me:pa55word@')}/flowers.parquet?token=s3cret"
    manifest = find_source("huggingface").fetch(dataset(url, tmp_path))
    assert manifest["class_names"] == ["even", "odd"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for secret in (b"pa55word", b"s3cret"):
        assert secret.decode() not in str(manifest)
        assert not [path for path in files if secret in path.read_bytes() + bytes(path)]
