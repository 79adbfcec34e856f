"""Sets of images, in memory or memory-mapped in shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.provenance import Provenance


class ShardedImages:
    """Arrays (n, H, W, C) that are read like one concatenated array (N, H, W, C).

    An index returns one image; a slice, indices (n,) or a mask return a copy of n images.
    """

    def __init__(self, shards: Sequence[NDArray[np.uint8]]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])
        self.rows = np.arange(self.ends[-1])
        self.shape = (len(self.rows), *shards[0].shape[1:])
        self.dtype, self.ndim = shards[0].dtype, shards[0].ndim
        self.nbytes = sum(shard.nbytes for shard in shards)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows = np.asarray(self.rows[key])  # NumPy's own indexing: of one image, a slice, indices or a mask
        return self._gather(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.asarray(self[:], dtype=dtype)

    def _gather(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        numbers = np.searchsorted(self.ends, rows, side="right")  # the shard of each row
        order = np.argsort(numbers, kind="stable")
        used, begins = np.unique(numbers[order], return_index=True)
        for number, places in zip(used, np.split(order, begins)[1:], strict=True):
            shard = self.shards[number]
            images[places] = shard[rows[places] - (self.ends[number] - len(shard))]
        return images


Images = NDArray[np.uint8] | ShardedImages


class ImageSubset:
    """Rows (n,) of other images; they are read only when they are indexed."""

    def __init__(self, images: Images, rows: NDArray[np.int64]) -> None:
        self.images, self.rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        return self.images[self.rows[key]]


@dataclass(frozen=True)
class ImageStore:
    """Images with their labels.

    Attributes:
        images: (N, H, W, C) uint8, memory-mapped or not.
        labels: (N,) int64, indices into ``class_names``; None for images without classes.
        class_names: one name per class.
        made_by: the source, its files and the parameters.
        statistics: statistics computed at decoding, as plain data, with duplicates and rejected files.
        hashes: hash of each image, (N,) bytes, memory-mapped or not; None if they were not computed.
    """

    images: Images
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    made_by: Provenance
    statistics: dict[str, Any] = field(default_factory=dict)
    hashes: NDArray[np.bytes_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        _, height, width, channels = self.images.shape
        return channels, height, width
