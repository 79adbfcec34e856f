"""What a source is, and what several kinds of them share."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.class_names import readable
from ddpm_kedro.images.store import Shard, stratified_holdout
from ddpm_kedro.ingestion.downloading import check, download, is_url
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters
from ddpm_kedro.provenance import redact, redact_text

Manifest = dict[str, Any]
Shards = Callable[[], Iterable[Callable[[], Shard]]]


class Source(Protocol):
    """A kind of source: brings files to this machine, and makes images of them."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Bring the files here unless they are; gives folder, class names and checksums."""

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """What makes the training images, and the hold-out."""

    def check(self, manifest: Manifest) -> None:
        """Raise where the files are no longer those of the manifest."""


def without_path(dataset: DatasetParameters) -> None:
    """Refuse a path that would have no effect.

    Raises:
        UserError: where there is one.
    """
    if dataset.path is not None:
        raise UserError(
            f"dataset.path = {redact_text(dataset.path)} is for one's own pictures: add dataset.source=folder, "
            f"archive, array or huggingface; dataset.source is {dataset.source}."
        )
    without_checksum(dataset)


def without_checksum(dataset: DatasetParameters) -> None:
    """Refuse a checksum that would not be compared with anything.

    Raises:
        UserError: where there is one.
    """
    if dataset.sha256 is not None:
        what = f"dataset.source={dataset.source}" if dataset.path is None else f"dataset.path = {dataset.path}"
        raise UserError(
            f"dataset.sha256 is the checksum of one file, an archive or an array, and {what} is none: leave it at null."
        )


def place_of(dataset: DatasetParameters, *, although_gone: bool = False) -> str:
    """Where the images of ``dataset.path`` lie, from wherever it is asked: an absolute path, a URL or a hub's name.

    Args:
        dataset: with a path.
        although_gone: also make what is not there an absolute path.
    """
    path = str(dataset.path)
    if is_url(path):
        return str(redact(path))
    return os.path.realpath(path) if although_gone or os.path.exists(path) else path


def brought(dataset: DatasetParameters, what: str, fits: Callable[[Path], bool]) -> Path:
    """Where ``dataset.path`` lies on this machine; downloaded where it is a URL.

    Args:
        dataset: with that path.
        what: is wanted, in words.
        fits: whether a downloaded file is that, by its content.

    Raises:
        UserError: where there is none, or it cannot be had, or is another file than ``dataset.sha256`` says.
    """
    if dataset.path is None:
        raise UserError(f"dataset.source={dataset.source} needs dataset.path: {what}, or its URL.")
    if is_url(dataset.path):
        return download(dataset.path, Path(dataset.download_folder) / dataset.source, dataset.sha256, fits)
    path = Path(dataset.path)
    if "://" in dataset.path and not path.exists():
        kind = dataset.path.partition("://")[0]
        raise UserError(f"dataset.path = {redact_text(dataset.path)}: no file system is known for {kind}://.")
    if path.is_dir():
        without_checksum(dataset)
    if dataset.sha256 is not None and path.is_file():
        check(path, str(path), dataset.sha256)
    return path


def classes_of(dataset: DatasetParameters, found: Iterable[str], where_none: str) -> list[str]:
    """The names of the classes that are there and wanted, as files, grids and commands can show them.

    Raises:
        UserError: where they are asked for and not there, with ``where_none``.
    """
    names = readable(found)
    if dataset.classes and not names:
        raise UserError(f"dataset.classes is true, but {where_none}.")
    return [] if dataset.classes is False else names


def rows_of(part: int, count: int, images: ImagesParameters, *, divided: bool) -> NDArray[np.int64]:
    """Which of so many pictures without known classes are training (part 0) or hold-out (1).

    Args:
        divided: whether the pictures are those of one part already.
    """
    if divided:
        return np.arange(count)
    return stratified_holdout(None, count, images.holdout_fraction, images.seed)[part]


def checksums(paths: Iterable[Path], below: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path below a folder."""
    sums = {}
    for path in sorted(paths):
        with path.open("rb") as file:
            sums[path.relative_to(below).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
