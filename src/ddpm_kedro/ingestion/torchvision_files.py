"""Sets of torchvision whose pictures have many sizes: decoded by torchvision, picture by picture."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.images.store import Shard
from ddpm_kedro.ingestion.decoding import (
    Look,
    Picture,
    RejectedImageError,
    Wanted,
    as_array,
    fitted,
    original_of,
    with_channels,
)
from ddpm_kedro.ingestion.sharding import Labelled, decoded, in_shards, looks_of, wanted_of
from ddpm_kedro.ingestion.source import Manifest, Shards, rows_of, without_path
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters

LOOKED_AT = 64  # pictures, for the choice of size
Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TorchvisionPictures:
    """A set from ``torchvision.datasets`` whose pictures have many sizes.

    Attributes:
        dataset: the name of the class.
        train: its options for the training pictures.
        test: its options for the hold-out; None where a part of the training pictures is held out.
    """

    dataset: str
    train: Options = (("split", "train"),)
    test: Options | None = (("split", "test"),)

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download it, or say what is to be brought by hand."""
        without_path(dataset)
        folder = Path(dataset.download_folder) / dataset.source
        data = bring(self.dataset, folder, self.train)
        if self.test is not None:
            bring(self.dataset, folder, self.test)
        manifest = {"folder": str(folder), "class_names": class_names(data)}
        return manifest | {
            "sha256": {"names and sizes": digest(folder)},
            "looks": looks(data),
        }

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The set's own test split is the hold-out where it has one, else a part of the pictures."""
        folder, wanted = Path(manifest["folder"]), wanted_of(manifest["looks"], images)
        options = (self.train, self.train if self.test is None else self.test)

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            count = len(opened(self.dataset, folder, options[index]))
            rows = rows_of(index, count, images, divided=self.test is not None)
            return shards(self.dataset, folder, options[index], rows, wanted)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        if {"names and sizes": digest(Path(manifest["folder"]))} != manifest["sha256"]:
            raise UserError(f"The files in {manifest['folder']} changed while they were read. Run it again.")


def bring(dataset: str, folder: Path, options: Options) -> Any:
    """The set of that name, downloaded where torchvision can, and opened.

    Raises:
        UserError: with torchvision's own words, where it cannot be downloaded or must be brought by hand.
    """
    kind, given = resolve_name(f"torchvision.datasets:{dataset}"), dict(options)
    if "download" in signature(kind).parameters:
        given["download"] = True
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder, "downloads"):
            return kind(str(folder), **given)
    except (OSError, RuntimeError, ValueError) as error:  # an URLError is an OSError
        raise MissingSourceError(
            f"{dataset} is not there: {' '.join(str(error).split())} Files go to {folder}."
        ) from error


@lru_cache(maxsize=2)
def opened(dataset: str, folder: Path, options: Options) -> Any:
    """The set once it is there, opened once in a process."""
    try:
        return resolve_name(f"torchvision.datasets:{dataset}")(str(folder), **dict(options))
    except (OSError, RuntimeError) as error:
        raise MissingSourceError(f"The files of {dataset} are not in {folder}: {error}") from error


def class_names(data: Any) -> list[str]:
    """As torchvision has them; of several for one class, the first."""
    names = getattr(data, "classes", None) or getattr(data, "categories", None) or ()
    return [name if isinstance(name, str) else name[0] for name in names]


def looks(data: Any) -> list[list[int]]:
    """See :func:`looks_of`."""

    def look(row: int) -> Look:
        with _whatever_it_raises():
            image, _ = data[row]
        return Look(image.height, image.width, 1 if image.mode in {"1", "L"} else 3)

    return looks_of(len(data), look, at_most=LOOKED_AT)


def digest(folder: Path) -> str:
    """SHA-256 of the names and sizes of all files: their contents may be many gigabytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    listed = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def shards(
    dataset: str, folder: Path, options: Options, rows: NDArray[np.int64], wanted: Wanted
) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these pictures; each can be made in another process."""
    for some in in_shards(rows, wanted):
        yield partial(make_shard, dataset, folder, options, some, wanted)


def make_shard(dataset: str, folder: Path, options: Options, rows: NDArray[np.int64], wanted: Wanted) -> Shard:
    """Decode them."""
    data = opened(dataset, folder, options)

    def read(index: int) -> Labelled:
        with _whatever_it_raises():
            image, label = data[int(rows[index])]
            return Picture(as_array(fitted(with_channels(image, wanted), wanted)), original_of(image)), int(label)

    return decoded(len(rows), wanted, lambda index: f"{dataset} {rows[index]}", read)


@contextmanager
def _whatever_it_raises() -> Iterator[None]:
    """Becomes a RejectedImageError: Pillow and the many formats of these sets have errors of all kinds."""
    try:
        yield
    except (RejectedImageError, MemoryError):
        raise
    except Exception as error:
        raise RejectedImageError("it is damaged") from error
