"""Datasets of torchvision: images of one size as arrays in memory, images of many sizes decoded one by one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from urllib.error import URLError

import numpy as np

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.ingestion.array_images import InMemoryImages
from ddpm_kedro.ingestion.collection import (
    ImageCollection,
    ImageFormat,
    Inspection,
    LabelledImage,
    Probe,
    RejectedImageError,
)
from ddpm_kedro.ingestion.decoding import convert, inspect_image, original_of
from ddpm_kedro.ingestion.probing import probe_source
from ddpm_kedro.ingestion.small_sets import SmallSet
from ddpm_kedro.ingestion.source import Manifest, Source, refuse_path
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.parameters import DatasetParameters

PROBED = 64  # largest number of images to probe: each is decoded
Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TorchvisionArrays(SmallSet):
    """A dataset from ``torchvision.datasets`` whose images have one size, downloaded with a checksum.

    Attributes:
        dataset: name of torchvision's class.
        train: options of this class for the training images.
        test: options of this class for the test images.
        labels: name of the attribute with the labels.
        channels_first: whether the images are (N, C, H, W).
        class_names: names of the classes; None to use torchvision's names.
    """

    dataset: str
    train: Options = (("train", True),)
    test: Options = (("train", False),)
    labels: str = "targets"
    channels_first: bool = False
    class_names: tuple[str, ...] | None = None

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Download both splits; files with the right checksum are not downloaded again."""
        try:
            training, _ = (download_dataset(self.dataset, folder, options) for options in (self.train, self.test))
        except (URLError, RuntimeError, TimeoutError) as error:
            raise MissingSourceError(
                f"The images could not be downloaded: {' '.join(str(error).split())} Check the network, or put the "
                f"archive into {folder} by hand; use.dataset=mnist5k needs no network."
            ) from error
        return folder, self.class_names or tuple(training.classes)

    def read(self, folder: Path) -> tuple[InMemoryImages, InMemoryImages]:
        """Read both splits."""
        return self._read(folder, self.train), self._read(folder, self.test)

    def _read(self, folder: Path, options: Options) -> InMemoryImages:
        dataset = open_dataset(self.dataset, folder, options)
        images = np.asarray(dataset.data)
        if self.channels_first:
            images = np.moveaxis(images, 1, -1)
        if images.ndim == 3:
            images = images[..., None]
        labels = np.asarray(getattr(dataset, self.labels), dtype=np.int64)
        return InMemoryImages(images, labels, self.class_names or tuple(dataset.classes))


@dataclass(frozen=True)
class TorchvisionImages(ImageCollection):
    """Images of one split of a dataset that is on this machine."""

    dataset: str
    folder: Path
    options: Options

    @property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """Return torchvision's class names; of several names for one class, the first."""
        names = getattr(self._images, "classes", None) or getattr(self._images, "categories", None) or ()
        return [name if isinstance(name, str) else name[0] for name in names]

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.dataset} {index}"

    def probe(self, index: int) -> Probe:  # noqa: D102
        with _rejection():
            image, _ = self._images[index]
        return Probe(image.height, image.width, 1 if image.mode in {"1", "L"} else 3)

    def inspect(self, index: int) -> Inspection:  # noqa: D102
        with _rejection():
            image, _ = self._images[index]
            return inspect_image(image)

    def read(self, index: int, target: ImageFormat) -> LabelledImage:  # noqa: D102
        with _rejection():
            image, label = self._images[index]
            return LabelledImage(convert(image, target), int(label), original_of(image))

    @cached_property
    def _images(self) -> Any:
        return open_once(self.dataset, self.folder, self.options)


@dataclass(frozen=True)
class TorchvisionFiles(Source):
    """A dataset from ``torchvision.datasets`` whose images have many sizes.

    Attributes:
        dataset: name of torchvision's class.
        train: options of this class for the training images.
        test: options of this class for the holdout images; None if a part of the training images is held out.
    """

    dataset: str
    train: Options = (("split", "train"),)
    test: Options | None = (("split", "test"),)

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download the dataset, or report which files have to be downloaded by hand."""
        refuse_path(dataset)
        folder = Path(dataset.download_folder) / dataset.source
        try:
            for options in (self.train, self.test):
                if options is not None:
                    download_dataset(self.dataset, folder, options)
        except (OSError, RuntimeError, ValueError) as error:  # an URLError is an OSError
            message = " ".join(str(error).split())
            raise MissingSourceError(f"{self.dataset} is not there: {message} Files go to {folder}.") from error
        images = TorchvisionImages(self.dataset, folder, self.train)
        return probe_source(images, PROBED) | {
            "folder": str(folder),
            "class_names": images.class_names,
            "sha256": {"names and sizes": digest(folder)},
        }

    def open(self, manifest: Manifest) -> tuple[TorchvisionImages, TorchvisionImages | None]:
        """Open the training split, and the test split if there is one."""
        folder = Path(manifest["folder"])
        holdout = None if self.test is None else TorchvisionImages(self.dataset, folder, self.test)
        return TorchvisionImages(self.dataset, folder, self.train), holdout

    def check(self, manifest: Manifest) -> None:
        """Compare names and sizes of the files with the manifest."""
        if {"names and sizes": digest(Path(manifest["folder"]))} != manifest["sha256"]:
            raise UserError(f"The files in {manifest['folder']} changed while they were read. Run it again.")


def download_dataset(dataset: str, folder: Path, options: Options) -> Any:
    """Open a dataset; download it first if torchvision can."""
    # Imported by name and late: importing torchvision takes longer than all other imports of a run together.
    kind = resolve_name(f"torchvision.datasets:{dataset}")
    download = {"download": True} if "download" in signature(kind).parameters else {}
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "downloads"):
        return kind(str(folder), **dict(options), **download)


def open_dataset(dataset: str, folder: Path, options: Options) -> Any:
    """Open a dataset that is on this machine."""
    try:
        return resolve_name(f"torchvision.datasets:{dataset}")(str(folder), **dict(options))
    except (OSError, RuntimeError) as error:
        raise MissingSourceError(f"The files of {dataset} are not in {folder}: {error}") from error


open_once = lru_cache(maxsize=2)(open_dataset)
"""Like :func:`open_dataset`, once per process."""


def digest(folder: Path) -> str:
    """Return the SHA-256 of the names and sizes of all files: their contents may be many gigabytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    sizes = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)
    return hashlib.sha256(repr(sizes).encode()).hexdigest()


@contextmanager
def _rejection() -> Iterator[None]:
    """Raise any error as a RejectedImageError: Pillow and these many formats have errors of all kinds."""
    try:
        yield
    except (RejectedImageError, MemoryError):
        raise
    except Exception as error:
        raise RejectedImageError("it is damaged") from error
