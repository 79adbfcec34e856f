"""What a network learns to predict, and how much each timestep counts.

Every target is a combination a · x_0 + b · noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm_kedro.parameters import DiffusionParameters

Weight = Callable[[Any, Any], Any]  # numbers to a number, tensors to a tensor
SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1] (Karras et al. 2022, table 1)


class Target(NamedTuple):
    """The target a(alpha, sigma) · x_0 + b(alpha, sigma) · noise."""

    x0_weight: Weight
    noise_weight: Weight

    def make(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network should answer at x_t = alpha · x_0 + sigma · noise."""
        made: Tensor = self.x0_weight(alpha, sigma) * x0 + self.noise_weight(alpha, sigma) * noise
        return made

    def to_x0(self, prediction: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """The x_0 that an answer at ``x`` means: two linear equations, solved for x_0.

        For noise this is x_0 = (x_t - sigma · noise) / alpha (Ho et al. 2020, eq. 15), for v it is
        x_0 = alpha · x_t - sigma · v (Salimans and Ho 2022, appendix D), for edm it is
        x_0 = c_skip · x_t + c_out · F (Karras et al. 2022, eq. 7).
        """
        a, b = self.x0_weight(alpha, sigma), self.noise_weight(alpha, sigma)
        x0: Tensor = (b * x - sigma * prediction) / (b * alpha - a * sigma)
        return x0

    def slope(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """How far the answer moves when the x_0 it means moves by one, x_t staying where it is."""
        moved: Tensor = self.x0_weight(alpha, sigma) - self.noise_weight(alpha, sigma) * alpha / sigma
        return moved


def _norm(alpha: Any, sigma: Any) -> Any:
    """The standard deviation of x_t."""
    return (sigma**2 + (SIGMA_DATA * alpha) ** 2) ** 0.5


TARGETS: dict[str, Target] = {
    "noise": Target(x0_weight=lambda alpha, sigma: 0.0, noise_weight=lambda alpha, sigma: 1.0),
    "x0": Target(x0_weight=lambda alpha, sigma: 1.0, noise_weight=lambda alpha, sigma: 0.0),
    "v": Target(x0_weight=lambda alpha, sigma: -sigma, noise_weight=lambda alpha, sigma: alpha),
    # F = (x_0 - c_skip · x_t) / c_out, whose squared error is EDM's weighted one (Karras et al. 2022, eq. 8)
    "edm": Target(
        x0_weight=lambda alpha, sigma: sigma / (SIGMA_DATA * _norm(alpha, sigma)),
        noise_weight=lambda alpha, sigma: -SIGMA_DATA * alpha / _norm(alpha, sigma),
    ),
    # the velocity of rectified flow, dx_t/dt (Liu et al. 2023, eq. 1)
    "velocity": Target(x0_weight=lambda alpha, sigma: -1.0, noise_weight=lambda alpha, sigma: 1.0),
}


def unweighted(target: Target, alpha: Tensor, sigma: Tensor, p: DiffusionParameters) -> Tensor:
    """Every timestep counts alike (Ho et al. 2020, eq. 14)."""
    return torch.ones_like(sigma)


def min_snr(target: Target, alpha: Tensor, sigma: Tensor, p: DiffusionParameters) -> Tensor:
    """min(SNR, gamma) for the error of x_0 (Hang et al. 2023, section 3.4), whatever the network predicts.

    For noise this is min(SNR, gamma) / SNR, for v it is min(SNR, gamma) / (SNR + 1).
    """
    return (alpha / sigma).square().clamp(max=p.min_snr_gamma) / target.slope(alpha, sigma).square()


WEIGHTINGS: dict[str, Callable[[Target, Tensor, Tensor, DiffusionParameters], Tensor]] = {
    "none": unweighted,
    "min_snr": min_snr,
}
