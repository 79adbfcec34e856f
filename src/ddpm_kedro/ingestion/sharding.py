"""Cut a collection into shards, and decode a shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Original, RejectedImageError
from ddpm_kedro.ingestion.decoding import without_warnings

SHARD_BYTES = 2**23


@dataclass(frozen=True)
class Shard:
    """Decoded images that are stored in one file.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N,) int64, -1 for none.
        names: of the files, (N,); empty if the images come from an array.
        rejected: name and reason for each file that gives no image.
        originals: what the files contained, (N,); empty if the images come from an array.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    originals: tuple[Original, ...] = ()


@dataclass(frozen=True)
class EncodedShard:
    """Images of a shard that are not decoded yet; cheap to pickle."""

    collection: ImageCollection
    target: ImageFormat

    @without_warnings()
    def decode(self) -> Shard:
        """Decode all images, and list those that are rejected."""
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
        return Shard(images[: len(labels)], classes, tuple(names), tuple(rejected), tuple(originals))


def cut_into_shards(
    collection: ImageCollection, rows: NDArray[np.int64], target: ImageFormat
) -> Iterator[EncodedShard]:
    """Yield the shards of these rows of a collection, of SHARD_BYTES each."""
    each = len(rows) if collection.in_memory else max(1, SHARD_BYTES // prod(target.shape))
    for start in range(0, len(rows), each or 1):
        yield EncodedShard(collection.take(rows[start : start + each]), target)
