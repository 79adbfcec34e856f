"""The targets a network learns to predict, and the weights of the loss.

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

    def compute(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the correct prediction at x_t = alpha · x_0 + sigma · noise, (N, C, H, W)."""
        prediction: Tensor = self.x0_weight(alpha, sigma) * x0 + self.noise_weight(alpha, sigma) * noise
        return prediction

    def to_x0(self, prediction: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return the x_0 that follows from a prediction at x_t = ``x``: two linear equations, solved for x_0.

        For noise this is x_0 = (x_t - sigma · noise) / alpha (Ho et al. 2020, eq. 15), for v it is
        x_0 = alpha · x_t - sigma · v (Salimans and Ho 2022, appendix D), for edm it is
        x_0 = c_skip · x_t + c_out · F (Karras et al. 2022, eq. 7).
        """
        a, b = self.x0_weight(alpha, sigma), self.noise_weight(alpha, sigma)
        x0: Tensor = (b * x - sigma * prediction) / (b * alpha - a * sigma)
        return x0

    def slope(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the prediction with respect to x_0, at constant x_t."""
        slope: Tensor = self.x0_weight(alpha, sigma) - self.noise_weight(alpha, sigma) * alpha / sigma
        return slope


def _norm(alpha: Any, sigma: Any) -> Any:
    """Return the standard deviation of x_t."""
    return (sigma**2 + (SIGMA_DATA * alpha) ** 2) ** 0.5


TARGETS: dict[str, Target] = {
    "noise": Target(x0_weight=lambda alpha, sigma: 0.0, noise_weight=lambda alpha, sigma: 1.0),
    "x0": Target(x0_weight=lambda alpha, sigma: 1.0, noise_weight=lambda alpha, sigma: 0.0),
    "v": Target(x0_weight=lambda alpha, sigma: -sigma, noise_weight=lambda alpha, sigma: alpha),
    # F = (x_0 - c_skip · x_t) / c_out, whose squared error is EDM's weighted error (Karras et al. 2022, eq. 8)
    "edm": Target(
        x0_weight=lambda alpha, sigma: sigma / (SIGMA_DATA * _norm(alpha, sigma)),
        noise_weight=lambda alpha, sigma: -SIGMA_DATA * alpha / _norm(alpha, sigma),
    ),
    # the velocity of rectified flow, dx_t/dt (Liu et al. 2023, eq. 1)
    "velocity": Target(x0_weight=lambda alpha, sigma: -1.0, noise_weight=lambda alpha, sigma: 1.0),
}


def unweighted(target: Target, alpha: Tensor, sigma: Tensor, p: DiffusionParameters) -> Tensor:
    """Return the same weight for every timestep (Ho et al. 2020, eq. 14)."""
    return torch.ones_like(sigma)


def min_snr(target: Target, alpha: Tensor, sigma: Tensor, p: DiffusionParameters) -> Tensor:
    """Return the weight min(SNR, gamma) of the error of x_0 (Hang et al. 2023, section 3.4), for any target.

    For noise this is min(SNR, gamma) / SNR, for v it is min(SNR, gamma) / (SNR + 1).
    """
    return (alpha / sigma).square().clamp(max=p.min_snr_gamma) / target.slope(alpha, sigma).square()


WEIGHTINGS: dict[str, Callable[[Target, Tensor, Tensor, DiffusionParameters], Tensor]] = {
    "none": unweighted,
    "min_snr": min_snr,
}
