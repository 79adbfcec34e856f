"""Split images into training and holdout images."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import ImageCollection
from ddpm_kedro.parameters import ImagesParameters

Rows = NDArray[np.int64]


def split_holdout(collection: ImageCollection, images: ImagesParameters, *, classes: bool) -> tuple[Rows, Rows]:
    """Return sorted indices of training and holdout images, split by their keys if they have any, otherwise at random.

    With ``classes``, each class keeps a training image.

    Raises:
        UserError: if one of the two parts would be empty.
    """
    labels, keys = collection.labels if classes else None, collection.keys()
    if keys is None:
        return stratified_holdout(labels, len(collection), images.holdout_fraction, images.seed)
    return hashed_holdout(keys, labels, images.holdout_fraction, images.seed)


def hashed_holdout(keys: Iterable[bytes], labels: Rows | None, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Split by a hash of each key: an image that is added later moves no other image.

    With labels (N,), each class keeps a training image.
    """
    seeded = str(seed).encode()
    digests = [blake2b(key, digest_size=8, key=seeded).digest() for key in keys]
    hashes = np.frombuffer(b"".join(digests), dtype=">u8")
    held = hashes < np.uint64(fraction * 2**64)
    _check_both(fraction, int(held.sum()), len(held))
    kept = np.zeros(0, dtype=np.int64) if labels is None else _kept(labels, hashes, held)
    training = ~held
    training[kept] = True
    if held.sum() > len(kept):  # else these images are in both parts, which the report counts
        held[kept] = False
    return np.flatnonzero(training), np.flatnonzero(held)


def _kept(labels: Rows, hashes: NDArray[np.uint64], held: NDArray[np.bool_]) -> Rows:
    """Return, for each class that would lose all images, the image with the largest hash."""
    lost = np.setdiff1d(labels[held], labels[~held])
    rows = np.flatnonzero(np.isin(labels, lost[lost >= 0]))
    rows = rows[np.lexsort((hashes[rows], labels[rows]))]
    return rows[np.flatnonzero(np.diff(labels[rows], append=-1))]


def stratified_holdout(labels: Rows | None, count: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Split 0 … count-1 at random: the same fraction of each class in labels (N,), which keeps a training image."""
    rng = np.random.default_rng(seed)
    classes = np.zeros(count, dtype=np.int64) if labels is None else labels
    members = [rng.permutation(np.flatnonzero(classes == c)) for c in np.unique(classes)]
    kept = 1 if len(members) > 1 else 0
    holdout = np.sort(np.concatenate([m[: min(round(fraction * len(m)), len(m) - kept)] for m in members]))
    _check_both(fraction, len(holdout), count)
    return np.setdiff1d(np.arange(count), holdout), holdout


def _check_both(fraction: float, held: int, count: int) -> None:
    if not 0 < held < count:
        raise UserError(
            f"images.holdout_fraction = {fraction} holds out {held} of {count} images: choose a fraction that leaves "
            "some for training and some for the holdout."
        )
