"""Shards for tests of what comes after decoding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shard


@dataclass(frozen=True)
class FakeShard:
    """A shard that a function decodes."""

    decode: Callable[[], Shard]


def one_shard(images: NDArray[np.uint8]) -> Callable[[], list[FakeShard]]:
    """Return what gives images without classes as one shard."""
    return lambda: [FakeShard(lambda: Shard(images, np.full(len(images), -1)))]


def decode_all(store: LazyImageStore) -> ImageStore:
    """Decode all images of a store into memory."""
    decoded = [shard.decode() for shard in store.shards()]
    images, labels = (np.concatenate([getattr(shard, name) for shard in decoded]) for name in ("images", "labels"))
    return ImageStore(images, labels if store.class_names else None, store.class_names, store.made_by)
