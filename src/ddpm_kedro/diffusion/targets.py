"""What a network learns to predict: every target is a combination a · x_0 + b · noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Weight = Callable[[Any, Any], Any]  # numbers to a number, tensors to a tensor


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
        x_0 = alpha · x_t - sigma · v (Salimans and Ho 2022, appendix D).
        """
        a, b = self.x0_weight(alpha, sigma), self.noise_weight(alpha, sigma)
        x0: Tensor = (b * x - sigma * prediction) / (b * alpha - a * sigma)
        return x0


TARGETS: dict[str, Target] = {
    "noise": Target(x0_weight=lambda alpha, sigma: 0.0, noise_weight=lambda alpha, sigma: 1.0),
    "v": Target(x0_weight=lambda alpha, sigma: -sigma, noise_weight=lambda alpha, sigma: alpha),
}
