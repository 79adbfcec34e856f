"""Random numbers of training: each follows from a seed, a purpose and a step, and never from earlier numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

from ddpm_kedro.diffusion import derive_seed, generator_for, seed_global_state


class Stream(IntEnum):
    """The purposes of random numbers: each has its own numbers."""

    INITIALISATION = 0
    ORDER = 1
    AUGMENTATION = 2
    DIFFUSION = 3
    LABEL_DROPOUT = 4
    DROPOUT = 5
    VALIDATION = 6


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, Stream.ORDER, epoch))


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> Tensor:
    """Return the indices of a step's images: the next batch of an endless sequence of epochs, each in its own order.

    Returns:
        (batch_size,) int64 in [0, count).
    """
    first, end = step * batch_size, (step + 1) * batch_size
    epochs = range(first // count, -(-end // count))
    parts = [_epoch_order(seed, epoch, count)[max(first - epoch * count, 0) : end - epoch * count] for epoch in epochs]
    return torch.cat(parts)


def augmentation_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator for augmenting the batch of a step."""
    return generator_for(seed, Stream.AUGMENTATION, step)


@contextmanager
def seeded(device: torch.device, *counters: int) -> Iterator[None]:
    """Seed torch's global random state from counters for a block: see :func:`seed_global_state`."""
    with seed_global_state(derive_seed(*counters), device):
        yield
