"""Shards for tests of what comes after decoding."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.ingestion.lazy_store import Shard


@dataclass(frozen=True)
class FakeShard:
    """A shard that a function decodes."""

    decode: Callable[[], Shard]


def one_shard(images: NDArray[np.uint8]) -> Callable[[], list[FakeShard]]:
    """Return what gives images without classes as one shard."""
    return lambda: [FakeShard(lambda: Shard(images, np.full(len(images), -1)))]
