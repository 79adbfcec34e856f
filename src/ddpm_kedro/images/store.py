"""What a set of images is, in memory or memory-mapped."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


@dataclass(frozen=True)
class ImageStore:
    """Images with their labels.

    Attributes:
        images: (N, H, W, C) uint8, perhaps memory-mapped.
        labels: (N,) int64, indices into ``class_names``; None for images without classes.
        class_names: one name a class.
        made_by: the source, its files and how they were divided.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    made_by: Provenance

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, height, width, channels = self.images.shape
        return channels, height, width


@dataclass(frozen=True)
class LazyImageStore:
    """A store that is decoded when it is saved, and not at all where the saved one was made by the same."""

    made_by: Provenance
    read: Callable[[], ImageStore]


def stratified_holdout(
    labels: NDArray[np.int64] | None, count: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide 0 … count-1 into training and hold-out, the same fraction of every class held out.

    Returns:
        Two sorted, disjoint index arrays: training, hold-out.

    Raises:
        UserError: where nothing would be left on one side.
    """
    rng = np.random.default_rng(seed)
    classes = np.zeros(count, dtype=np.int64) if labels is None else labels
    members = [rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    holdout = np.sort(np.concatenate([m[: round(fraction * len(m))] for m in members]))
    if not 0 < len(holdout) < count:
        raise UserError(
            f"images.holdout_fraction = {fraction} leaves {len(holdout)} of {count} images for the hold-out; "
            "choose a fraction that leaves some on both sides."
        )
    return np.setdiff1d(np.arange(count), holdout), holdout
