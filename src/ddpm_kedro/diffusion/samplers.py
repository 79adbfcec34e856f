"""Samplers: from noise to pictures. Each knows neither network nor target, only predicted x_0.

All are called as ``sampler(denoise, x, steps, noise, **options)``:

- ``denoise(x, step)`` gives the predicted x_0 at ``x`` (N, C, H, W);
- ``x`` is x_t of the first step: standard normal noise times its sigma, or a noised picture;
- ``steps`` are the rows of the schedule to visit, the last without noise (:meth:`Schedule.steps`);
- ``noise()`` gives fresh standard normal noise like ``x``;

and give x_0. The last step of each goes to no noise at all ("denoise to zero"), where x is the predicted x_0.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, Protocol

from torch import Tensor

from ddpm_kedro.diffusion.schedules import Step

Denoise = Callable[[Tensor, Step], Tensor]
Noise = Callable[[], Tensor]
KARRAS_SIGMA_MAX = 80.0  # Karras et al. (2022), table 1


class Sampler(Protocol):
    """The one signature of all samplers."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise) -> Tensor:
        """Draw x_0."""
        ...


def ddpm(
    denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, variance: Literal["small", "large"] = "small"
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), for any subsequence of the timesteps.

    Every step draws from the posterior q(x_s | x_t, x_0) of eq. 6 and 7, with the predicted x_0.
    ``variance``: "small" is the posterior's own (beta tilde), "large" that of the forward step (beta).
    """
    for now, then in pairwise(steps):
        x0 = denoise(x, now)
        alpha = now.alpha / then.alpha  # of the forward step from s = then to t = now
        beta = now.sigma**2 - (alpha * then.sigma) ** 2
        mean_x0 = then.alpha * beta / now.sigma**2
        mean_xt = alpha * (then.sigma / now.sigma) ** 2
        x = mean_x0 * x0 + mean_xt * x
        if then.sigma > 0:
            x = x + ((beta if variance == "large" else beta * (then.sigma / now.sigma) ** 2) ** 0.5) * noise()
    return x


def ddim(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic for eta = 0, ancestral for eta = 1.

    The predicted noise is derived from the x_0 that is kept in range, so that both always explain ``x``.
    """
    for now, then in pairwise(steps):
        x0 = denoise(x, now)
        predicted_noise = (x - now.alpha * x0) / now.sigma
        alpha = now.alpha / then.alpha
        beta = now.sigma**2 - (alpha * then.sigma) ** 2
        fresh = eta * beta**0.5 * then.sigma / now.sigma  # eq. 16
        x = then.alpha * x0 + (then.sigma**2 - fresh**2) ** 0.5 * predicted_noise
        if fresh > 0:
            x = x + fresh * noise()
    return x


def dpm_solver(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise) -> Tensor:
    """DPM-Solver++ 2M (Lu et al. 2022, DPM-Solver++, algorithm 2): x_0 is continued along the line of two steps."""
    x0_before, h_before = x, math.inf
    for now, then in pairwise(steps):
        x0 = denoise(x, now)
        shrink = now.alpha * then.sigma / (then.alpha * now.sigma)  # exp(-h)
        h = -math.log(shrink) if shrink > 0 else math.inf  # growth of lambda = log(alpha / sigma)
        ahead = x0 + h / (2 * h_before) * (x0 - x0_before) if then.sigma > 0 and h_before < math.inf else x0
        x = then.sigma / now.sigma * x + then.alpha * (1 - shrink) * ahead
        x0_before, h_before = x0, h
    return x


def heun(
    denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, sigma_max: float = KARRAS_SIGMA_MAX
) -> Tensor:
    """Heun's method (Karras et al. 2022, algorithm 1) in x / alpha: two evaluations a step, but one for the last.

    To no noise a step is Euler's; and from noise levels sigma / alpha above ``sigma_max``, where nothing is seen of the
    image, and the next level is too far away for the mean of two slopes.
    """
    for now, then in pairwise(steps):
        x0 = denoise(x, now)
        euler = then.alpha * x0 + then.sigma / now.sigma * (x - now.alpha * x0)
        if then.sigma > 0 and now.sigma <= sigma_max * now.alpha:
            level_now, level_then = now.sigma / now.alpha, then.sigma / then.alpha
            slope = (x / now.alpha - x0) / level_now
            slope_then = (euler / then.alpha - denoise(euler, then)) / level_then
            x = then.alpha * (x / now.alpha + (level_then - level_now) / 2 * (slope + slope_then))
        else:
            x = euler
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver++": dpm_solver, "heun": heun}
