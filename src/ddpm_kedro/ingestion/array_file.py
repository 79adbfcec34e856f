"""Images in one array: a .npy file, or a .npz file with their labels."""

import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.ingestion.array_images import ArrayImages, InMemoryImages
from ddpm_kedro.ingestion.class_folders import SPLITS
from ddpm_kedro.ingestion.probing import probe_source
from ddpm_kedro.ingestion.source import Manifest, Source, checksums, choose_class_names, fetch_path
from ddpm_kedro.parameters import DatasetParameters

logger = logging.getLogger(__name__)

IMAGES = ("images", "image", "x", "data")
LABELS = ("labels", "label", "y", "targets", "target")
CLASS_NAMES = ("class_names", "label_names")
"""Names of the arrays of a .npz file, in any case, alone or with a word for a split: x, x_train, train_images, …"""
CHANNELS = (1, 3, 4)


class Arrays(NamedTuple):
    """Training images and, if there are some, holdout images; names of their arrays, and of arrays not used."""

    splits: list[InMemoryImages]
    names: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class ArrayFileImages(ArrayImages):
    """Images of one split of a file."""

    path: Path
    splits: bool
    index: int

    @cached_property
    def images(self) -> NDArray[np.uint8]:  # type: ignore[override]  # noqa: D102
        return open_arrays(self.path, self.splits).splits[self.index].images

    @cached_property
    def labels(self) -> NDArray[np.int64] | None:  # type: ignore[override]  # noqa: D102
        return open_arrays(self.path, self.splits).splits[self.index].labels

    @cached_property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]  # noqa: D102
        return open_arrays(self.path, self.splits).splits[self.index].class_names


class ArrayFileSource(Source):
    """A .npy or .npz file."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Open the file, and log what it contains."""
        path = fetch_path(dataset, "a .npy or .npz file", is_array)
        (training, *holdout), array_names, unused = open_arrays(path, dataset.splits)
        names = choose_class_names(dataset, training.class_names, f"{path} has no labels")
        logger.info("%s: %s images%s.", path, f"{len(training):,}", f" of {len(names)} classes" if names else "")
        if holdout:
            logger.info("The holdout images are %s: %s images.", array_names[1], f"{len(holdout[0]):,}")
        if unused:
            logger.warning("%s has arrays that are not used: %s.", path, ", ".join(unused))
        return probe_source(training) | {
            "folder": str(path),
            "class_names": names,
            "sha256": checksums([path], path.parent),
            "parts": array_names if holdout else (),
            "splits": dataset.splits,
            "files": 1,
            "looks": [[*training.images.shape[1:], len(training)]],
        }

    def open(self, manifest: Manifest) -> tuple[ArrayFileImages, ArrayFileImages | None]:
        """Open the training split, and the validation or test split if there is one."""
        path, splits = Path(manifest["folder"]), manifest.get("splits", False)
        holdout = ArrayFileImages(path, splits, 1) if len(open_arrays(path, splits).splits) > 1 else None
        return ArrayFileImages(path, splits, 0), holdout

    def check(self, manifest: Manifest) -> None:
        """Compare the checksum of the file with the manifest."""
        path = Path(manifest["folder"])
        if checksums([path], path.parent) != manifest["sha256"]:
            raise UserError(f"{path} changed while it was read. Run it again when it is complete.")


def is_array(path: Path) -> bool:
    """Return whether a file is a .npy or .npz, by its content."""
    with path.open("rb") as file:
        return file.read(6) == np.lib.format.MAGIC_PREFIX or zipfile.is_zipfile(path)


def open_arrays(path: Path, splits: bool) -> Arrays:
    """Return the content of a file; it is cached until the file changes.

    With ``splits``, arrays of a validation or test split are the holdout images.

    Raises:
        UserError: if there are no images, or not one label per image.
    """
    if not path.is_file():
        kind = UserError if path.exists() else MissingSourceError
        raise kind(f"dataset.path = {path} is not a file: dataset.source=array reads a .npy or .npz file.")
    return _open_arrays(path, splits, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _open_arrays(path: Path, splits: bool, _: int) -> Arrays:
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)  # a pickle could execute code
        file_arrays = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else {IMAGES[0]: content}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it contains objects, or is another kind of file" if "allow_pickle" in str(error) else error
        raise UserError(f"{path} cannot be read as a .npy or .npz file of numbers: {reason}.") from error
    images = _find(file_arrays, [*IMAGES, *_of_split(IMAGES, "training"), "arr_0"])
    if images is None:
        raise UserError(
            f"{path} has the arrays {', '.join(file_arrays) or '(none)'}, but images must be called {IMAGES[0]}."
        )
    labels = _find(file_arrays, [*LABELS, *_of_split(LABELS, "training"), "arr_1"])
    names = _find(file_arrays, CLASS_NAMES) if labels else None
    held = _find_holdout(file_arrays, labels is not None) if splits else (None, None)
    arrays = {name: _checked(path, file_arrays[name]) for name in (images, held[0]) if name}
    encode = _LabelEncoder(path, file_arrays[labels], file_arrays[names] if names else None) if labels else None
    parts = [
        InMemoryImages(
            np.asarray(array),  # reading a row of a memory map is ten times as slow
            encode(name, file_arrays[name], len(array)) if encode and name else None,
            encode.names if encode else (),
        )
        for array, name in zip(arrays.values(), (labels, held[1]), strict=False)
    ]
    unused = tuple(name for name in file_arrays if name not in {images, labels, names, *held})
    return Arrays(parts, tuple(arrays), unused)


def _of_split(kinds: tuple[str, ...], split: str) -> list[str]:
    words = [word for word, meaning in SPLITS.items() if meaning == split]
    return [name for kind in kinds for word in words for name in (f"{kind}_{word}", f"{word}_{kind}")]


def _find(file_arrays: dict[str, Any], names: Iterable[str]) -> str | None:
    """Return the first of these names that an array has, in any case."""
    lower = {name.lower(): name for name in reversed(file_arrays)}
    return next((lower[name] for name in names if name in lower), None)


def _find_holdout(file_arrays: dict[str, Any], labelled: bool) -> tuple[str | None, str | None]:
    """Return the names of images and labels of the validation split, or else of the test split.

    If the training images have labels, a split without labels is not used.
    """
    for split in ("validation", "test"):
        images, labels = (_find(file_arrays, _of_split(kinds, split)) for kinds in (IMAGES, LABELS))
        if images and (labels or not labelled):
            return images, labels if labelled else None
    return None, None


def _checked(path: Path, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[..., None]
    start = f"The images in {path} are {images.dtype} of shape {images.shape}"
    if images.dtype != np.uint8:
        raise UserError(f"{start}, but must be uint8, from 0 to 255.")
    if images.ndim == 4 and images.shape[-1] not in CHANNELS and images.shape[1] in CHANNELS:
        raise UserError(f"{start}, but channels must come last: np.moveaxis(images, 1, -1) moves them there.")
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or 0 in images.shape:
        raise UserError(
            f"{start}, but must be (images, height, width, channels) with 1, 3 or 4 channels, or without that axis."
        )
    return images


class _LabelEncoder:
    """Encodes the labels of a file as indices of its classes, ``names``."""

    def __init__(self, path: Path, training: NDArray[Any], names: NDArray[Any] | None) -> None:
        if names is not None and names.ndim != 1:
            raise UserError(f"The class names in {path} are of shape {names.shape}, but must be one name per class.")
        classes = np.unique(training) if names is None else names
        self.path, self.values = path, classes if names is None else None
        self.names = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in classes)

    def __call__(self, name: str, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return the labels (N,) of an array as int64.

        Raises:
            UserError: if they are not integers, not one per image, or of an unknown class.
        """
        if labels.shape not in {(count,), (count, 1)} or labels.dtype.kind not in "iu":
            raise UserError(
                f"The labels {name} in {self.path} are {labels.dtype} of shape {labels.shape}, but must be {count} "
                "integers."
            )
        labels = labels.reshape(count)
        if self.values is not None:
            if len(unknown := np.setdiff1d(labels, self.values)):
                raise UserError(f"The labels {name} in {self.path} contain {unknown[0]}, which no training image has.")
            return np.searchsorted(self.values, labels).astype(np.int64)
        if labels.min() < 0 or labels.max() >= len(self.names):
            raise UserError(
                f"The labels {name} in {self.path} are {labels.min()} … {labels.max()}, but there are "
                f"{len(self.names)} names."
            )
        return labels.astype(np.int64)
