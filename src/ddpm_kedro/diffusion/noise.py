"""Random numbers that follow from counters: no random state is stored."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch
from torch import Tensor

GLOBAL_STATE = RLock()
"""Held by the thread that uses torch's global random state."""


def derive_seed(*counters: int) -> int:
    """Return a seed for these counters, independent of the seeds of all other counters."""
    return int(np.random.SeedSequence(counters).generate_state(1, np.uint64)[0])


def generator_for(*counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on ``device``, seeded by these counters."""
    return torch.Generator(device).manual_seed(derive_seed(*counters))


@contextmanager
def seed_global_state(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global random state for a block and restore it: for code that takes no generator, such as dropout.

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
    """Interpolate spherically between two noises (N, C, H, W) (Shoemake 1985, slerp); each image has its own angle.

    ``share`` is 0 for ``a`` and 1 for ``b``.
    """
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1))[:, None, None, None]
    angle = cosine.clamp(-1, 1).acos().clamp(min=1e-6)  # 0 for equal noises
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def image_noise(
    seed: int, indices: Sequence[int], shape: tuple[int, int, int], device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Return a function that returns new standard normal noise (N, C, H, W) on ``device`` at every call.

    Image i of a seed has its own generator: it receives the same noise in a batch of any size and on any device.
    ``indices`` are the numbers of the images in the batch; ``shape`` is (C, H, W).
    """
    generators = [generator_for(seed, index) for index in indices]
    return lambda: torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
