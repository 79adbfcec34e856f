"""What a set of images is: in memory, or memory-mapped in shards."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
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
        facts: what was found out while they were decoded, as plain data: statistics, duplicates, rejected files.
        hashes: (N,) bytes, equal for equal images, perhaps memory-mapped; None where nobody has computed them.
    """

    images: Images
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    made_by: Provenance
    facts: dict[str, Any] = field(default_factory=dict)
    hashes: NDArray[np.bytes_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, height, width, channels = self.images.shape
        return channels, height, width


class Original(NamedTuple):
    """What a file held.

    Attributes:
        height: in pixels, as they lie in the file.
        width: in pixels.
        kind: format and mode, as Pillow calls them: ``JPEG RGB``.
    """

    height: int
    width: int
    kind: str


@dataclass(frozen=True)
class Shard:
    """Some images of a store, that lie together.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N,) int64, -1 for none.
        names: of the files, (N,) where they had any.
        rejected: name and reason of files that gave no image.
        originals: what the files held, (N,) where there were any.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    originals: tuple[Original, ...] = ()


@dataclass(frozen=True)
class LazyImageStore:
    """A store that is decoded when it is saved, and not at all where the saved one was made by the same.

    Attributes:
        made_by: as of :class:`ImageStore`.
        class_names: as of :class:`ImageStore`.
        shards: makes the shards; each can be made alone and, where there are workers, in another process.
        workers: processes that make shards; 0 for none, None for one a core.
        max_rejected_fraction: of the files; with more there is no store.
        check: called when all shards are made; raises where their source is no longer what it was.
    """

    made_by: Provenance
    class_names: tuple[str, ...]
    shards: Callable[[], Iterable[Callable[[], Shard]]]
    workers: int | None = 0
    max_rejected_fraction: float = 0.0
    check: Callable[[], None] = lambda: None

    def read(self) -> ImageStore:
        """All of it in memory."""
        made = [make() for make in self.shards()]
        images, labels = (np.concatenate([getattr(shard, name) for shard in made]) for name in ("images", "labels"))
        return ImageStore(images, labels if self.class_names else None, self.class_names, self.made_by)


def stratified_holdout(
    labels: NDArray[np.int64] | None, count: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide 0 … count-1 into training and hold-out: the same fraction of each class, which keeps an image.

    Returns:
        Two sorted, disjoint index arrays: training, hold-out.

    Raises:
        UserError: where nothing would be left on one side.
    """
    rng = np.random.default_rng(seed)
    classes = np.zeros(count, dtype=np.int64) if labels is None else labels
    members = [rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    kept = 1 if len(members) > 1 else 0
    holdout = np.sort(np.concatenate([m[: min(round(fraction * len(m)), len(m) - kept)] for m in members]))
    if not 0 < len(holdout) < count:
        raise UserError(
            f"images.holdout_fraction = {fraction} leaves {len(holdout)} of {count} images for the hold-out; "
            "choose a fraction that leaves some on both sides."
        )
    return np.setdiff1d(np.arange(count), holdout), holdout
