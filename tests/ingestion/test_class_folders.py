"""Folders: splits, classes, images beside them, links and files of other names."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.parameters import DatasetParameters
from ddpm_kedro.pipelines.data_ingestion.nodes import prepare_images, report_ingestion
from tests.conftest import IMAGES
from tests.ingestion import corpus
from tests.ingestion.shards import decode_all

SHADES = {"cat": 40, "dog": 200}
Part = Counter[tuple[str, int]]
"""Number of images by class and value."""


def write(top: Path, counts: dict[str, int], value: int | None = None, suffix: str = "png") -> Path:
    """Write images of one value per folder: the value of the class with the name of the folder."""
    for folder, count in counts.items():
        (top / folder).mkdir(parents=True, exist_ok=True)
        shade = SHADES.get(Path(folder).name, 120) if value is None else value
        for number in range(count):
            Image.fromarray(np.full((8, 8), shade, np.uint8)).save(top / folder / f"{number:03}.{suffix}")
    return top


def fetch(path: Path, **more: Any) -> dict[str, Any]:
    given = {"source": "folder", "download_folder": "", "path": str(path), "classes": None, "sha256": None}
    return {"source": "folder"} | find_source("folder").fetch(DatasetParameters(**(given | more)))


def parts(path: Path, **more: Any) -> tuple[Part, Part]:
    """Return the training and holdout images."""
    manifest = fetch(path, **more)
    training, holdout = (decode_all(store) for store in prepare_images(manifest, IMAGES))
    return counted(training), counted(holdout)


def counted(store: Any) -> Part:
    names = [""] * len(store.images) if store.labels is None else [store.class_names[label] for label in store.labels]
    return Counter(zip(names, store.images[:, 0, 0, 0].tolist(), strict=True))


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "VALIDATION", "holdout"), ("train", "dev", "eval")]
)
def test_splits_with_classes_train_on_train_and_hold_out_validation(
    words: tuple[str, str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = {f"{word}/{name}": count for word, count in zip(words, (4, 2, 3), strict=True) for name in SHADES}
    with caplog.at_level(logging.INFO):
        training, holdout = parts(write(tmp_path, counts))
    assert training == {("cat", 40): 4, ("dog", 200): 4}
    assert holdout == {("cat", 40): 2, ("dog", 200): 2}
    assert f"{words[0]} (8) is training, {words[1]} (4) is the holdout, {words[2]} (6) is not used" in caplog.text


def test_test_is_the_holdout_without_validation(tmp_path: Path) -> None:
    write(tmp_path, {"train": 8}, 10)
    write(tmp_path, {"test": 2}, 250)
    assert parts(tmp_path) == ({("", 10): 8}, {("", 250): 2})


def test_splits_false_uses_splits_as_classes_with_another_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, {"train": 40, "test": 40})
    as_classes = fetch(tmp_path, splits=False)
    assert as_classes["class_names"] == ["test", "train"]
    without, split = fetch(tmp_path, splits=False, classes=False), fetch(tmp_path)
    assert without["class_names"] == split["class_names"] == []
    assert prepare_images(without, IMAGES)[0].made_by != prepare_images(split, IMAGES)[0].made_by


def test_a_folder_called_train_beside_others_is_a_class(tmp_path: Path) -> None:
    assert fetch(write(tmp_path, {"train": 20, "bus": 20, "car": 20}))["class_names"] == ["bus", "car", "train"]


def test_splits_below_one_folder_and_classes_below_another_are_found(tmp_path: Path) -> None:
    write(tmp_path, {f"set/{split}/images/{name}": 3 for split in ("train", "test") for name in SHADES})
    assert parts(tmp_path) == ({("cat", 40): 3, ("dog", 200): 3},) * 2


def test_splits_without_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"test, val of dataset.path are splits, but none of them is for training.*dataset.splits=false"
    ):
        fetch(write(tmp_path, {"val": 2, "test": 2}))


def test_classes_that_only_the_holdout_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training image of the classes eel: the folders train have no folder"):
        fetch(write(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 2, "test/eel": 2}))


def test_every_class_keeps_a_training_image_and_small_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = fetch(write(tmp_path, {"large": 40} | {f"small {number}": 1 for number in range(30)}))
    training, holdout = (decode_all(store) for store in prepare_images(manifest, IMAGES))
    assert set(training.labels.tolist()) == set(range(31))  # type: ignore[union-attr]
    assert not {image.tobytes() for image in training.images if image[0, 0, 0] != 120}
    assert len(training.images) + len(holdout.images) == 70
    assert set(holdout.labels.tolist()) == {0}  # type: ignore[union-attr]
    with caplog.at_level(logging.INFO):
        report_ingestion(training, holdout, manifest)
    assert "30 classes have no holdout image; they have too few images: small 0, small 1, small 10," in caplog.text


def test_classes_of_one_image_each_all_have_a_training_image(tmp_path: Path) -> None:
    training, holdout = parts(write(tmp_path, {f"class {number}": 1 for number in range(30)}))
    assert len(training) == 30
    assert holdout  # images of both parts, which the report counts


def test_a_class_whose_images_cannot_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"cat": 60, "dog": 60, "eel": 1})
    (tmp_path / "eel/000.png").write_bytes(b"x")
    manifest = fetch(tmp_path)
    report_ingestion(*(decode_all(store) for store in prepare_images(manifest, IMAGES)), manifest)
    assert "1 classes have no training image; the model cannot learn them: eel" in caplog.text


@pytest.mark.parametrize("classes", [None, True])
def test_images_beside_folders_of_classes_are_named_and_left_out(
    classes: bool | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"cat": 20, "dog": 20})
    write(tmp_path, {".": 1}, 99)
    Image.new("L", (500, 300)).save(tmp_path / "preview.jpg")
    training, holdout = parts(tmp_path, classes=classes)
    assert training + holdout == {("cat", 40): 20, ("dog", 200): 20}  # and their size is not that of the preview
    assert "2 images lie beside the folders of classes" in caplog.text
    assert "000.png, preview.jpg. They are left out; dataset.classes=false uses all images" in caplog.text


def test_images_beside_folders_are_used_without_classes(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 20, "dog": 20})
    write(tmp_path, {".": 3}, 99)
    training, holdout = parts(tmp_path, classes=False)
    assert (training + holdout)["", 99] == 3


def test_more_images_beside_the_folders_than_in_them_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 2, "dog": 2, ".": 5})
    with pytest.raises(
        UserError, match=r"5 images lie beside .*dataset.classes=true leaves them out, dataset.classes="
    ):
        fetch(tmp_path)
    assert fetch(tmp_path, classes=True)["class_names"] == ["cat", "dog"]
    assert fetch(tmp_path, classes=False)["class_names"] == []


def linked(tmp_path: Path, links: dict[str, str]) -> Path:
    """Return a folder of links to images outside of it."""
    write(tmp_path / "originals", {"cat": 20, "dog": 20})
    for name, target in links.items():
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).symlink_to(tmp_path / target)
    return tmp_path / "top"


FILES = {f"{name}/{number:03}.png": f"originals/{name}/{number:03}.png" for name in SHADES for number in range(20)}
FOLDERS = {name: f"originals/{name}" for name in SHADES}


@pytest.mark.parametrize("links", [FILES, FOLDERS], ids=["files", "folders"])
def test_links_out_of_the_folder_are_reported_and_followed_on_demand(links: dict[str, str], tmp_path: Path) -> None:
    top = linked(tmp_path, links)
    with pytest.raises(UserError, match=r"link out of the folder \(\d+\).* dataset.follow_links=true follows"):
        fetch(top)
    training, holdout = parts(top, follow_links=True)
    assert training + holdout == {("cat", 40): 20, ("dog", 200): 20}


def test_links_that_are_not_followed_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = write(linked(tmp_path, {"eel": "originals/dog"}), {"cat": 20, "dog": 20})
    assert fetch(top)["class_names"] == ["cat", "dog"]
    [message] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert message == (
        "1 other files are skipped: it is a link out of the folder (1). "
        "dataset.follow_links=true follows links out of the folder."
    )


@pytest.mark.parametrize(("target", "files"), [("top", 40), ("top/cat", 40), (".", 40), ("originals", 80)])
def test_links_in_a_circle_are_skipped(
    target: str, files: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    top = linked(tmp_path, {"cat": "originals/cat", "dog": "originals/dog", "eel": target})
    (tmp_path / "originals/cat/again").symlink_to(tmp_path / "originals/cat")
    assert fetch(top, follow_links=True)["files"] == files
    assert "listed elsewhere, or to one above" in caplog.text


def test_files_of_rarer_suffixes_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 10}, suffix="png")
    for suffix, form in (("jfif", "JPEG"), ("avif", "AVIF"), ("ppm", "PPM"), ("jp2", "JPEG2000")):
        for number in range(10):
            (tmp_path / suffix).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / suffix / f"{number}.{suffix}", form)
    training, holdout = parts(tmp_path)
    assert Counter(name for name, _ in (training + holdout).elements()) == dict.fromkeys(
        ("avif", "cat", "jfif", "jp2", "ppm"), 10
    )


def test_files_of_other_suffixes_are_counted_by_suffix_and_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"cat": 10})
    for number in range(3):
        (tmp_path / "dog").mkdir(exist_ok=True)
        (tmp_path / f"dog/{number}.HEIC").write_bytes(corpus.picture())
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert fetch(tmp_path)["class_names"] == []
    [message] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert message == "4 other files are skipped: .heic in dog (3), .txt (1)."


def test_files_of_other_suffixes_at_the_top_give_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"cat": 10, "dog": 10})
    for name in ("README.txt", ".hidden.png", "cat/.DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    fetch(tmp_path)
    assert not caplog.records or {record.levelno for record in caplog.records} == {logging.INFO}
