"""Random numbers that follow from counters: no random state is kept anywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch
from torch import Tensor

GLOBAL_STATE = RLock()
"""Held by the one thread of the process that may use torch's global random state."""


def derive_seed(*counters: int) -> int:
    """A seed for these counters, independent of that of any others."""
    return int(np.random.SeedSequence(counters).generate_state(1, np.uint64)[0])


def generator_for(*counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` for these counters."""
    return torch.Generator(device).manual_seed(derive_seed(*counters))


@contextmanager
def seeded_globally(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global random state for a block, and put it back: for what takes no generator, like dropout.

    Other threads wait for the end of the block.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    with GLOBAL_STATE, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Between two noises, along the sphere on which both lie (Shoemake 1985, slerp).

    Args:
        a, b: (N, C, H, W); the angle between them is that of each picture.
        share: 0 for ``a``, 1 for ``b``.
    """
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1))[:, None, None, None]
    angle = cosine.clamp(-1, 1).acos().clamp(min=1e-6)  # of equal noises: nothing to turn
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def image_noise(
    seed: int, indices: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Standard normal noise from one generator an image.

    Image i of a seed is fed the same noise in a batch of any size and on any device.

    Args:
        seed: of the sampling.
        indices: number of each image of the batch.
        shape: (C, H, W).

    Returns:
        A function: every call gives fresh noise (N, C, H, W) on ``device``.
    """
    generators = [generator_for(seed, index) for index in indices]

    def draw() -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)

    return draw
