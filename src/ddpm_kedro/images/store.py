"""What a set of images is: in memory, or memory-mapped in shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.provenance import Provenance


class ShardedImages:
    """Arrays (n, H, W, C) one behind the other, read like one array (N, H, W, C).

    A number gives a picture, a slice or numbers (n,) a copy of so many.
    """

    def __init__(self, shards: Sequence[NDArray[np.uint8]]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])
        self.shape = (int(self.ends[-1]), *shards[0].shape[1:])
        self.dtype, self.ndim = shards[0].dtype, shards[0].ndim
        self.nbytes = sum(shard.nbytes for shard in shards)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        wanted = np.asarray(key)
        if wanted.dtype == bool:
            wanted = np.flatnonzero(wanted)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"There are {len(self)} images.")
        return self._gathered(wanted.reshape(-1)).reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.asarray(self[:], dtype=dtype)

    def _gathered(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = np.empty((len(wanted), *self.shape[1:]), dtype=self.dtype)
        of = np.searchsorted(self.ends, wanted, side="right")
        order = np.argsort(of, kind="stable")
        numbers, begins = np.unique(of[order], return_index=True)
        for number, rows in zip(numbers, np.split(order, begins)[1:], strict=True):
            shard = self.shards[number]
            found[rows] = shard[wanted[rows] - (self.ends[number] - len(shard))]
        return found


Images = NDArray[np.uint8] | ShardedImages


@dataclass(frozen=True)
class ImageStore:
    """Images with their labels.

    Attributes:
        images: (N, H, W, C) uint8, perhaps memory-mapped.
        labels: (N,) int64, indices into ``class_names``; None for images without classes.
        class_names: one name a class.
        made_by: the source, its files and how they were divided.
        statistics: computed when the images were decoded, as plain data, with duplicates and rejected files.
        hashes: (N,) bytes, equal for equal images, perhaps memory-mapped; None where nobody has computed them.
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
        """(C, H, W)."""
        _, height, width, channels = self.images.shape
        return channels, height, width
