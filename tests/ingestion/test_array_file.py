"""Images in one array, and compressed archives."""

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion import unpacking
from ddpm_kedro.ingestion.lazy_store import split_source
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.unpacking import unpack
from ddpm_kedro.parameters import DatasetParameters
from tests.conftest import IMAGES, changed
from tests.ingestion import corpus
from tests.ingestion.test_image_files import members

GREY = np.random.default_rng(0).integers(0, 256, (40, 6, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), dtype=np.uint8)
LABELS = np.arange(40) % 3 + 7


def saved(path: Path, **named: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, named["images"])
    else:
        np.savez(path, **named)
    return path


def dataset(path: Path, **more: Any) -> DatasetParameters:
    given = {"source": "array", "download_folder": str(path.parent / "down"), "path": str(path)}
    return DatasetParameters(**{"classes": None, "sha256": None, **given, **more})


def read(path: Path, size: Any = None, **more: Any) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    source = find_source("array")
    manifest = source.fetch(dataset(path, **more))
    parts = split_source(source, manifest, changed(IMAGES, size=size))
    made = [[shard.decode() for shard in part()] for part in parts]
    assert all(len(part) for part in made)
    images, labels = (
        np.concatenate([getattr(shard, name) for part in made for shard in part]) for name in ("images", "labels")
    )
    return manifest, images, labels


def ordered(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


@pytest.mark.parametrize("images", [GREY, COLOUR, COLOUR[..., :1]], ids=["grey", "colour", "one channel"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_each_image_is_in_training_or_holdout(images: np.ndarray, suffix: str, tmp_path: Path) -> None:
    manifest, found, labels = read(saved(tmp_path / f"x.{suffix}", images=images))
    assert found.shape[1:3] == (6, 8)
    assert ordered(found) == ordered(images)
    assert manifest["class_names"] == []
    assert set(labels) == {-1}


@pytest.mark.parametrize("name", ["labels", "label", "y", "Y", "targets", "y_train", "train_labels", "arr_1"])
def test_labels_stay_with_their_images(name: str, tmp_path: Path) -> None:
    manifest, found, labels = read(saved(tmp_path / "x.npz", images=COLOUR, **{name: LABELS}))
    assert manifest["class_names"] == ["7", "8", "9"]
    of = {image.tobytes(): label for image, label in zip(COLOUR, LABELS, strict=True)}
    assert [of[image.tobytes()] for image in found] == [label + 7 for label in labels]
    names = np.array(["ant", "bee", "cat"])
    manifest, _, labels = read(saved(tmp_path / "y.npz", images=COLOUR, labels=LABELS - 7, class_names=names))
    assert manifest["class_names"] == ["ant", "bee", "cat"]
    assert set(labels) == {0, 1, 2}
    assert read(tmp_path / "y.npz", classes=False)[0]["class_names"] == []


def test_labels_in_a_column_and_class_names_in_bytes_are_read(tmp_path: Path) -> None:
    named = {"labels": LABELS[:, None] - 7, "class_names": np.array([b"ant", b"bee", b"cat"])}
    manifest, _, labels = read(saved(tmp_path / "x.npz", images=COLOUR, **named))
    assert manifest["class_names"] == ["ant", "bee", "cat"]
    assert set(labels) == {0, 1, 2}


def split_of(path: Path, **more: Any) -> list[list[bytes]]:
    source = find_source("array")
    parts = split_source(source, source.fetch(dataset(path, **more)), IMAGES)
    return [ordered(np.concatenate([shard.decode().images for shard in part()])) for part in parts]


@pytest.mark.parametrize(
    ("training", "holdout", "unused"),
    [
        (("x_train", "y_train"), ("x_test", "y_test"), ()),
        (("train_images", "train_labels"), ("val_images", "val_labels"), ("test_images", "test_labels")),
        (("X_train", "y_train"), ("X_test", "y_test"), ("weights",)),
    ],
)
def test_arrays_of_another_split_are_the_holdout_and_unused_ones_are_named(
    training: tuple[str, str],
    holdout: tuple[str, str],
    unused: tuple[str, ...],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = COLOUR[:10] // 2
    named = dict(zip(training, (COLOUR, LABELS), strict=True)) | dict(zip(holdout, (other, LABELS[:10]), strict=True))
    path = saved(tmp_path / "x.npz", **named, **dict.fromkeys(unused, COLOUR))
    assert split_of(path) == [ordered(COLOUR), ordered(other)]
    assert unused == () or f"not used: {', '.join(unused)}." in caplog.text
    manifest, _, labels = read(path)
    assert manifest["class_names"] == ["7", "8", "9"]
    assert labels[-10:].tolist() == (LABELS[:10] - 7).tolist()
    caplog.clear()
    assert sorted(chain(*split_of(path, splits=False))) == ordered(COLOUR)
    assert holdout[0] in caplog.text
    assert manifest["parts"] == (training[0], holdout[0])  # other images than without splits
    assert read(path, splits=False)[0]["parts"] == ()


def test_test_images_without_labels_are_not_the_holdout_of_labelled_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "x.npz", x_train=COLOUR, y_train=LABELS, x_test=COLOUR[:3])
    assert sorted(chain(*split_of(path))) == ordered(COLOUR)
    assert "has arrays that are not used: x_test." in caplog.text


def test_images_are_resized_to_the_size_of_the_parameters(tmp_path: Path) -> None:
    _, found, _ = read(saved(tmp_path / "x.npy", images=np.full((40, 6, 8), 99, dtype=np.uint8)), size=(9, 12))
    assert found.shape == (40, 9, 12, 1)
    assert set(found.reshape(-1)) == {99}


class Executed(NamedTuple):
    """Executes code when it is unpickled."""

    path: str

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"images": COLOUR / 255}, r"are float64 of shape \(40, 6, 8, 3\), but must be uint8"),
        ({"images": np.moveaxis(COLOUR, -1, 1)}, r"channels must come last: np.moveaxis"),
        ({"images": COLOUR[0, 0]}, r"must be \(images, height, width, channels\)"),
        ({"images": COLOUR[:0]}, r"must be \(images, height, width, channels\)"),
        ({"images": np.zeros((4, 6, 8, 5), dtype=np.uint8)}, r"with 1, 3 or 4 channels"),
        ({"pictures": COLOUR}, "has the arrays pictures, but images must be called images"),
        ({"images": COLOUR, "labels": LABELS[1:]}, r"int64 of shape \(39,\), but must be 40 integers"),
        ({"images": COLOUR, "labels": LABELS / 2}, r"float64 of shape \(40,\), but must be 40 integers"),
        ({"images": COLOUR, "labels": LABELS, "class_names": np.array(["a", "b"])}, "are 7 … 9, but there are 2 names"),
        (
            {"images": COLOUR, "labels": LABELS, "class_names": np.array("a")},
            r"are of shape \(\), but must be one name per class",
        ),
        (
            {"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR, "y_test": LABELS + 1},
            "labels y_test in .* contain 10, which no training image has",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(named: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(saved(tmp_path / "x.npz", **named))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_in_a_file_is_executed(suffix: str, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    saved(tmp_path / f"x.{suffix}", images=np.array([Executed(str(trace))], dtype=object))
    with pytest.raises(UserError, match=r"cannot be read as a .npy or .npz file of numbers"):
        read(tmp_path / f"x.{suffix}")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY", b"something else"])
def test_files_of_another_kind_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as a .npy or .npz file"):
        read(tmp_path / "x.npz")


def test_missing_files_labels_and_checksums_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        read(tmp_path / "gone.npy")
    path = saved(tmp_path / "x.npy", images=GREY)
    with pytest.raises(UserError, match=r"dataset.classes is true, but .* has no labels"):
        read(path, classes=True)
    with pytest.raises(UserError, match=r"does not match dataset.sha256"):
        read(path, sha256="00" * 32)
    with pytest.raises(UserError, match=r"needs dataset.path: a .npy or .npz file, or its URL"):
        find_source("array").fetch(changed(dataset(path), path=None))


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def not_locks(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix != ".lock"]


@pytest.mark.parametrize("kind", list(PACKERS))
def test_a_compressed_archive_is_unpacked_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = members(tmp_path / "top.tar", {"a/1.png": corpus.picture(), "b/2.png": corpus.picture()})
    folder = tmp_path / "down" / "archive"
    packed = tmp_path / f"pictures.tar.{kind}"
    packed.write_bytes(PACKERS[kind](plain.read_bytes()))
    made = unpack(packed, folder)
    assert made.read_bytes() == plain.read_bytes()
    assert not_locks(folder) == [made]
    monkeypatch.setattr(unpacking, "_decompress", lambda *_: pytest.fail("unpacked again"))
    assert unpack(packed, folder) == made
    assert unpack(plain, folder) == plain
    manifest = find_source("archive").fetch(dataset(packed, source="archive", download_folder=str(tmp_path / "down")))
    assert manifest["class_names"] == ["a", "b"]


@pytest.mark.parametrize("kind", list(PACKERS))
@pytest.mark.parametrize("spoil", [lambda data: data[:-20], lambda data: data[:30] + b"?" * 20 + data[50:]])
def test_a_damaged_archive_leaves_no_files(kind: str, spoil: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("1.png")
        member.size = 100_000
        archive.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(100_000)))
    packed = tmp_path / f"pictures.tar.{kind}"
    packed.write_bytes(spoil(PACKERS[kind](buffer.getvalue())))
    with pytest.raises(UserError, match=r"pictures.tar.\w+ cannot be unpacked"):
        unpack(packed, tmp_path / "down")
    assert not_locks(tmp_path / "down") == []


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "bomb.tar.gz"
    packed.write_bytes(gzip.compress(bytes(50 * 2**20)))
    usage = shutil.disk_usage(tmp_path)
    frees = iter(range(2**30 + 10 * 2**20, 0, -(2**20)))
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: usage._replace(free=next(frees)))
    with pytest.raises(UserError, match=r"unpacks to more than [\d,]+ bytes, and .* is too full"):
        unpack(packed, tmp_path / "down")
    assert not_locks(tmp_path / "down") == []
