"""Images that lie in one array: a .npy file, or a .npz file with their labels."""

import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.images.store import Shard, stratified_holdout
from ddpm_kedro.ingestion.class_folders import SPLITS
from ddpm_kedro.ingestion.decoding import Wanted, converted
from ddpm_kedro.ingestion.sharding import in_shards, wanted_of
from ddpm_kedro.ingestion.source import Manifest, Shards, brought, checksums, classes_of
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters

logger = logging.getLogger(__name__)

IMAGES, LABELS, CLASS_NAMES = (
    ("images", "image", "x", "data"),
    ("labels", "label", "y", "targets", "target"),
    (
        "class_names",
        "label_names",
    ),
)
"""What arrays of a .npz file are called, in any case, alone or with a word for a split: x, x_train, train_images, …"""
CHANNELS = (1, 3, 4)


class Part(NamedTuple):
    """Images of one part.

    Attributes:
        images: (N, H, W, C) uint8, memory-mapped where the file is a .npy.
        labels: (N,) int64, or None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


class Arrays(NamedTuple):
    """What a file holds.

    Attributes:
        training: images to train from.
        holdout: the arrays of a validation or test split, or None.
        class_names: one name a class; empty without labels.
        names: of the arrays of images.
        unused: names of the arrays that mean nothing here.
    """

    training: Part
    holdout: Part | None
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    unused: tuple[str, ...]


class ArrayPictures:
    """A .npy or .npz file."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What it holds."""
        path = brought(dataset, "a .npy or .npz file", is_array)
        found = opened(path, dataset.splits)
        names = classes_of(dataset, found.class_names, f"{path} has no labels")
        count, *size = found.training.images.shape
        logger.info("%s: %s images%s.", path, f"{count:,}", f" of {len(names)} classes" if names else "")
        if found.holdout is not None:
            logger.info("The hold-out is %s: %s images.", found.names[1], f"{len(found.holdout.images):,}")
        if found.unused:
            logger.warning("%s holds arrays that are not used: %s.", path, ", ".join(found.unused))
        manifest = {"folder": str(path), "class_names": names, "sha256": checksums([path], path.parent)}
        parts = {"parts": found.names if found.holdout is not None else (), "splits": dataset.splits}
        return manifest | parts | {"files": 1, "looks": [[*size, count]]}

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The validation or test split is the hold-out where there is one, else a stratified part of the images."""
        path, wanted = Path(manifest["folder"]), wanted_of(manifest["looks"], images)

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            training, holdout, *_ = opened(path, manifest.get("splits", False))
            if holdout is not None:
                rows = np.arange(len((training, holdout)[index].images))
                return shards(path, wanted, rows, manifest.get("splits", False), held_out=bool(index))
            labels = training.labels if manifest["class_names"] else None
            rows = stratified_holdout(labels, len(training.images), images.holdout_fraction, images.seed)[index]
            return shards(path, wanted, rows, manifest.get("splits", False))

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        path = Path(manifest["folder"])
        if checksums([path], path.parent) != manifest["sha256"]:
            raise UserError(f"{path} changed while it was read. Run it again when it is whole.")


def is_array(path: Path) -> bool:
    """Whether a file is a .npy or .npz, by its content."""
    with path.open("rb") as file:
        return file.read(6) == np.lib.format.MAGIC_PREFIX or zipfile.is_zipfile(path)


def opened(path: Path, splits: bool) -> Arrays:
    """What lies in a file; read once for as long as it stays the same.

    Args:
        splits: whether arrays of a validation or test split are the hold-out.

    Raises:
        UserError: where that are no images, or more or fewer labels.
    """
    if not path.is_file():
        kind = UserError if path.exists() else MissingSourceError
        raise kind(f"dataset.path = {path} is no file: the source array takes a .npy or .npz file.")
    return _opened(path, splits, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _opened(path: Path, splits: bool, _: int) -> Arrays:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # objects would execute what a file holds
        named = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else {IMAGES[0]: found}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = "it holds objects, or nothing of the kind" if "allow_pickle" in str(error) else error
        raise UserError(f"{path} cannot be read as a .npy or .npz file of numbers: {why}.") from error
    images = _find(named, [*IMAGES, *_of_split(IMAGES, "training"), "arr_0"])
    if images is None:
        raise UserError(f"{path} holds {', '.join(named) or 'nothing'}, but images must be called {IMAGES[0]}.")
    labels = _find(named, [*LABELS, *_of_split(LABELS, "training"), "arr_1"])
    names = _find(named, CLASS_NAMES) if labels else None
    held = _find_holdout(named, labels is not None) if splits else (None, None)
    arrays = {name: _checked(path, named[name]) for name in (images, held[0]) if name}
    encode = _Classes(path, named[labels], named[names] if names else None) if labels else None
    training, *holdout = (
        Part(array, encode(name, named[name], len(array)) if encode and name else None)
        for array, name in zip(arrays.values(), (labels, held[1]), strict=False)
    )
    unused = tuple(name for name in named if name not in {images, labels, names, *held})
    return Arrays(training, holdout[0] if holdout else None, encode.names if encode else (), tuple(arrays), unused)


def shards(
    path: Path, wanted: Wanted, rows: NDArray[np.int64], splits: bool, *, held_out: bool = False
) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these images; each can be made in another process."""
    for some in in_shards(rows, wanted):
        yield partial(make_shard, path, wanted, some, splits, held_out=held_out)


def make_shard(path: Path, wanted: Wanted, rows: NDArray[np.int64], splits: bool, *, held_out: bool) -> Shard:
    """These images, as all of them become."""
    training, holdout, *_ = opened(path, splits)
    part = holdout if held_out and holdout is not None else training
    images, size = part.images[rows], (wanted.height, wanted.width, wanted.channels)
    if images.shape[1:] != size:
        images = np.stack([converted(image, wanted) for image in images])
    return Shard(images, np.full(len(rows), -1) if part.labels is None else part.labels[rows])


def _of_split(kinds: tuple[str, ...], split: str) -> list[str]:
    words = [word for word, meaning in SPLITS.items() if meaning == split]
    return [name for kind in kinds for word in words for name in (f"{kind}_{word}", f"{word}_{kind}")]


def _find(named: dict[str, Any], names: Iterable[str]) -> str | None:
    """Return the first array that is called like one of these names, in any case."""
    lower = {name.lower(): name for name in reversed(named)}
    return next((lower[name] for name in names if name in lower), None)


def _find_holdout(named: dict[str, Any], labelled: bool) -> tuple[str | None, str | None]:
    """Return images and labels of the validation split, else of the test split, with labels if training has some."""
    for split in ("validation", "test"):
        images, labels = (_find(named, _of_split(kinds, split)) for kinds in (IMAGES, LABELS))
        if images and (labels or not labelled):
            return images, labels if labelled else None
    return None, None


def _checked(path: Path, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[..., None]
    what = f"The images in {path} are {images.dtype} of shape {images.shape}"
    if images.dtype != np.uint8:
        raise UserError(f"{what}, but must be uint8, from 0 to 255.")
    if images.ndim == 4 and images.shape[-1] not in CHANNELS and images.shape[1] in CHANNELS:
        raise UserError(f"{what}, but channels come last: np.moveaxis(images, 1, -1) moves them there.")
    if images.ndim != 4 or images.shape[-1] not in CHANNELS or 0 in images.shape:
        raise UserError(
            f"{what}, but must be (images, height, width, channels) with 1, 3 or 4 channels, or no such axis."
        )
    return images


class _Classes:
    """Turns the labels of a file into indices of its classes.

    Attributes:
        names: one name a class.
    """

    def __init__(self, path: Path, training: NDArray[Any], names: NDArray[Any] | None) -> None:
        if names is not None and names.ndim != 1:
            raise UserError(f"The class names in {path} are of shape {names.shape}, but must be one name a class.")
        given = np.unique(training) if names is None else names
        self.path, self.values = path, given if names is None else None
        self.names = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in given)

    def __call__(self, name: str, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return the labels (N,) of an array as int64.

        Raises:
            UserError: if they are no integers, too few or too many, or of a class that is not known.
        """
        if labels.shape not in {(count,), (count, 1)} or labels.dtype.kind not in "iu":
            raise UserError(
                f"The labels {name} in {self.path} are {labels.dtype} of shape {labels.shape}, but must be {count} "
                "integers."
            )
        labels = labels.reshape(count)
        if self.values is not None:
            if len(unknown := np.setdiff1d(labels, self.values)):
                raise UserError(f"The labels {name} in {self.path} hold {unknown[0]}, which no training image has.")
            return np.searchsorted(self.values, labels).astype(np.int64)
        if labels.min() < 0 or labels.max() >= len(self.names):
            raise UserError(
                f"The labels {name} in {self.path} are {labels.min()} … {labels.max()}, but there are "
                f"{len(self.names)} names."
            )
        return labels.astype(np.int64)
