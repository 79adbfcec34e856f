"""A store of images that is not decoded yet: it is cut into shards, each of which is decoded alone."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Original, RejectedImageError
from ddpm_kedro.ingestion.decoding import without_warnings
from ddpm_kedro.ingestion.probing import choose_format, describe_format, probe_images
from ddpm_kedro.ingestion.source import Manifest, Source
from ddpm_kedro.ingestion.splitting import Rows, split_holdout
from ddpm_kedro.parameters import ImagesParameters
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
SHARD_BYTES = 2**23


@dataclass(frozen=True)
class Shard:
    """Decoded images that are stored in one file; without names and originals if they come from an array.

    Attributes:
        images: pixels (N, H, W, C) uint8.
        labels: classes, (N,) int64, -1 for none.
        names: names of the files, (N,).
        rejected: name and reason for each file that gives no image.
        originals: sizes and formats of the images in the files, (N,).
        value_bits: see :class:`~ddpm_kedro.ingestion.collection.ImageFormat`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    originals: tuple[Original, ...] = ()
    value_bits: int | None = None


@dataclass(frozen=True)
class EncodedShard:
    """Images of a shard that are not decoded yet; cheap to pickle."""

    collection: ImageCollection
    target: ImageFormat

    @without_warnings()
    def decode(self) -> Shard:
        """Decode all images, and list the rejected files."""
        images = np.empty((len(self.collection), *self.target.shape), dtype=np.uint8)
        labels, names, rejected = list[int](), list[str](), list[tuple[str, str]]()
        originals = list[Original]()
        for index in range(len(self.collection)):
            try:
                pixels, label, original = self.collection.read(index, self.target)
            except RejectedImageError as reason:
                rejected.append((self.collection.name(index), str(reason)))
                continue
            images[len(labels)] = pixels
            labels.append(label)
            if original is not None:
                originals.append(original)
                names.append(self.collection.name(index))
        classes = np.array(labels, dtype=np.int64)
        lists = tuple(names), tuple(rejected), tuple(originals)
        return Shard(images[: len(labels)], classes, *lists, self.target.value_bits)


Shards = Callable[[], Iterable[EncodedShard]]


@dataclass(frozen=True)
class LazyImageStore:
    """A store that is decoded when it is saved, and not at all if the same store was saved before.

    Attributes:
        made_by, class_names: see :class:`~ddpm_kedro.images.store.ImageStore`.
        shards: function that opens the source and returns the shards, in order.
        workers: number of processes that decode; 0 for none, None for one per core.
        max_rejected_fraction: fraction of the files; if more are rejected, there is no store.
        check: function that is called when all shards are written; it raises an error if the source has changed.
    """

    made_by: Provenance
    class_names: tuple[str, ...]
    shards: Shards
    workers: int | None = 0
    max_rejected_fraction: float = 0.0
    check: Callable[[], None] = lambda: None


def split_source(source: Source, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
    """Return two functions that open the source: they return the shards of the training and the holdout images."""
    probed = choose_format(manifest["looks"], images, manifest.get("pixels")) if "looks" in manifest else None
    if probed is not None:
        for line in describe_format(probed, manifest["looks"], images, manifest.get("pixels", {})):
            logger.info("%s", line)

    @cache
    def opened() -> tuple[ImageFormat, list[tuple[ImageCollection, Rows]]]:
        training, holdout = source.open(manifest)
        target = probed or choose_format(probe_images(training), images)
        if holdout is not None:
            return target, [(part, np.arange(len(part))) for part in (training, holdout)]
        rows = split_holdout(training, images, classes=bool(manifest["class_names"]))
        return target, [(training, part) for part in rows]

    def shards(part: int) -> Iterable[EncodedShard]:
        target, parts = opened()
        return cut_into_shards(*parts[part], target)

    return partial(shards, 0), partial(shards, 1)


def cut_into_shards(collection: ImageCollection, rows: Rows, target: ImageFormat) -> Iterator[EncodedShard]:
    """Yield the shards of these rows of a collection, of SHARD_BYTES each."""
    each = len(rows) if collection.in_memory else max(1, SHARD_BYTES // prod(target.shape))
    for start in range(0, len(rows), each or 1):
        yield EncodedShard(collection.take(rows[start : start + each]), target)
