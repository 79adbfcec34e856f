"""The rows of the schedule that a sampler visits, from the noisiest down.

All are called as ``spacing(noise_levels, count, rho)`` with the noise levels sigma / alpha (T,), and return indices.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def trailing(noise_levels: Tensor, count: int, rho: float) -> list[int]:
    """Return evenly spaced indices from the last row on, which has the most noise (Lin et al. 2024, table 2)."""
    total = len(noise_levels)
    return [round(total - k * total / count) - 1 for k in range(count)]


def leading(noise_levels: Tensor, count: int, rho: float) -> list[int]:
    """Return t_i = floor(i · T / n), the first row included (Song et al. 2021, appendix D.3, linear).

    If n divides T, these are the timesteps of Lin et al. (2024), table 2, and of diffusers. Otherwise diffusers
    rounds the stride T / n down and starts with too little noise: for n = 501 of T = 1000 at t = 500.
    """
    return [k * len(noise_levels) // count for k in reversed(range(count))]


def linspace(noise_levels: Tensor, count: int, rho: float) -> list[int]:
    """Return evenly spaced indices, both ends included (Nichol and Dhariwal 2021; Lin et al. 2024, table 2)."""
    last = len(noise_levels) - 1
    return [round(last - k * last / max(count - 1, 1)) for k in range(count)]


def karras(noise_levels: Tensor, count: int, rho: float) -> list[int]:
    """Return the rows nearest to noise levels whose rho-th roots are evenly spaced (Karras et al. 2022, eq. 5).

    If two levels have the same nearest row, it is visited once.

    Raises:
        ValueError: for a schedule that ends in pure noise.
    """
    if torch.isinf(noise_levels[-1]):
        raise ValueError("karras spacing needs a schedule that ends with a trace of the image")
    ends = noise_levels[[-1, 0]] ** (1 / rho)
    levels = torch.linspace(float(ends[0]), float(ends[1]), count, dtype=noise_levels.dtype) ** rho
    nearest = (levels.log()[:, None] - noise_levels.log()).abs().argmin(dim=1)
    return list(dict.fromkeys(nearest.tolist()))


SPACINGS: dict[str, Callable[[Tensor, int, float], list[int]]] = {
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
    "karras": karras,
}
