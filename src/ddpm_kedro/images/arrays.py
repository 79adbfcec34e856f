"""Images that lie in one array: a .npy file, or a .npz file with their labels."""

import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.decoding import Wanted, converted
from ddpm_kedro.images.sharding import in_shards, wanted_of
from ddpm_kedro.images.source import Manifest, Shards, brought, checksums, classes_of
from ddpm_kedro.images.store import Shard, stratified_holdout
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters, MissingSourceError, UserError

logger = logging.getLogger(__name__)

IMAGES, LABELS, CLASS_NAMES = ("images", "x", "x_train", "arr_0"), ("labels", "y", "y_train", "arr_1"), "class_names"
"""What arrays of a .npz file are called; the first that is there is taken."""
CHANNELS = (1, 3, 4)


class Arrays(NamedTuple):
    """What a file holds.

    Attributes:
        images: (N, H, W, C) uint8, memory-mapped where the file is a .npy.
        labels: (N,) int64, or None.
        class_names: one name a class; empty without labels.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]


class ArrayPictures:
    """A .npy or .npz file."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What it holds."""
        path = brought(dataset, "a .npy or .npz file", is_array)
        found = opened(path)
        names = classes_of(dataset, found.class_names, f"{path} has no labels")
        logger.info("%s: %s images%s.", path, f"{len(found.images):,}", f" of {len(names)} classes" if names else "")
        _, *size = found.images.shape
        manifest = {"folder": str(path), "class_names": names, "sha256": checksums([path], path.parent)}
        return manifest | {"files": 1, "looks": [[*size, len(found.images)]]}

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """A stratified part of the images is the hold-out."""
        path, wanted = Path(manifest["folder"]), wanted_of(manifest["looks"], images)

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            found = opened(path)
            labels = found.labels if manifest["class_names"] else None
            rows = stratified_holdout(labels, len(found.images), images.holdout_fraction, images.seed)[index]
            return shards(path, wanted, rows)

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


def opened(path: Path) -> Arrays:
    """What lies in a file; read once for as long as it stays the same.

    Raises:
        UserError: where that are no images, or more or fewer labels.
    """
    if not path.is_file():
        kind = UserError if path.exists() else MissingSourceError
        raise kind(f"dataset.path = {path} is no file: the source array takes a .npy or .npz file.")
    return _opened(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _opened(path: Path, _: int) -> Arrays:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # objects would execute what a file holds
        named = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else {IMAGES[0]: found}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = "it holds objects, or nothing of the kind" if "allow_pickle" in str(error) else error
        raise UserError(f"{path} cannot be read as a .npy or .npz file of numbers: {why}.") from error
    images = _one_of(named, IMAGES)
    if images is None:
        raise UserError(f"{path} holds {', '.join(named) or 'nothing'}, but images must be called {IMAGES[0]}.")
    images = _checked(path, images)
    labels = _one_of(named, LABELS)
    if labels is None:
        return Arrays(images, None, ())
    return Arrays(images, *_classes(path, len(images), labels, named.get(CLASS_NAMES)))


def shards(path: Path, wanted: Wanted, rows: NDArray[np.int64]) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these images; each can be made in another process."""
    for some in in_shards(rows, wanted):
        yield partial(make_shard, path, wanted, some)


def make_shard(path: Path, wanted: Wanted, rows: NDArray[np.int64]) -> Shard:
    """These images, as all of them become."""
    arrays = opened(path)
    images, size = arrays.images[rows], (wanted.height, wanted.width, wanted.channels)
    if images.shape[1:] != size:
        images = np.stack([converted(image, wanted) for image in images])
    return Shard(images, np.full(len(rows), -1) if arrays.labels is None else arrays.labels[rows])


def _one_of(named: dict[str, Any], names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((named[name] for name in names if name in named), None)


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


def _classes(
    path: Path, count: int, labels: NDArray[Any], names: NDArray[Any] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"The labels in {path} are {labels.dtype} of shape {labels.shape}, but must be {count} integers."
        )
    if names is None:
        values, numbers = np.unique(labels, return_inverse=True)
        return numbers.astype(np.int64), tuple(str(value) for value in values)
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"The labels in {path} are {labels.min()} … {labels.max()}, but there are {len(names)} names.")
    return labels.astype(np.int64), tuple(str(name) for name in names)
