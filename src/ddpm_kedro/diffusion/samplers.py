"""Samplers: from noise to images, without knowing the network or its target.

All are called as ``sampler(denoise, x, steps, noise, **options)``:

- ``denoise(x, step)`` returns the predicted x_0 at ``x`` (N, C, H, W);
- ``x`` is x_t of the first step: standard normal noise times its sigma, or a noised image;
- ``steps`` are the rows of the schedule to visit; the last row has sigma = 0 (:meth:`Schedule.steps`);
- ``noise()`` returns new standard normal noise with the shape and device of ``x``.

They return x_0. The last step of every sampler goes to sigma = 0 ("denoise to zero"); its result is the predicted x_0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ddpm_kedro.diffusion.schedules import Step

Denoise = Callable[[Tensor, Step], Tensor]
Noise = Callable[[], Tensor]


def ddpm(
    denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, variance: Literal["small", "large"] = "small"
) -> Tensor:
    """Sample ancestrally (Ho et al. 2020, algorithm 2), for any subsequence of the timesteps.

    Each step samples from the posterior q(x_s | x_t, x_0) of eq. 6 and 7, with the predicted x_0.
    ``variance``: "small" is the variance of the posterior (beta tilde), "large" is the variance of the
    forward step (beta).
    """
    for cur, nxt in pairwise(steps):
        x0 = denoise(x, cur)
        alpha = cur.alpha / nxt.alpha  # alpha of the forward step from nxt to cur
        beta = cur.sigma**2 - (alpha * nxt.sigma) ** 2
        coef_x0 = nxt.alpha * beta / cur.sigma**2
        coef_xt = alpha * (nxt.sigma / cur.sigma) ** 2
        x = coef_x0 * x0 + coef_xt * x
        if nxt.sigma > 0:
            x = x + ((beta if variance == "large" else beta * (nxt.sigma / cur.sigma) ** 2) ** 0.5) * noise()
    return x


def ddim(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, eta: float = 0.0) -> Tensor:
    """Sample by DDIM (Song et al. 2021, eq. 12 and 16): deterministic for eta = 0, ancestral for eta = 1.

    The predicted noise is derived from x_0 after ``denoise`` has clamped it, so that
    x = alpha · x_0 + sigma · predicted_noise always holds.
    """
    for cur, nxt in pairwise(steps):
        x0 = denoise(x, cur)
        predicted_noise = (x - cur.alpha * x0) / cur.sigma
        alpha = cur.alpha / nxt.alpha
        beta = cur.sigma**2 - (alpha * nxt.sigma) ** 2
        sigma_noise = eta * beta**0.5 * nxt.sigma / cur.sigma  # eq. 16
        x = nxt.alpha * x0 + (nxt.sigma**2 - sigma_noise**2) ** 0.5 * predicted_noise
        if sigma_noise > 0:
            x = x + sigma_noise * noise()
    return x


def dpm_solver(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise) -> Tensor:
    """Sample by DPM-Solver++ 2M (Lu et al. 2022, DPM-Solver++, algorithm 2), which extrapolates x_0 from two steps."""
    x0_prev, h_prev = x, math.inf
    for cur, nxt in pairwise(steps):
        x0 = denoise(x, cur)
        ratio = cur.alpha * nxt.sigma / (nxt.alpha * cur.sigma)  # exp(-h)
        h = -math.log(ratio) if ratio > 0 else math.inf  # growth of lambda = log(alpha / sigma)
        ahead = x0 + h / (2 * h_prev) * (x0 - x0_prev) if nxt.sigma > 0 and h_prev < math.inf else x0
        x = nxt.sigma / cur.sigma * x + nxt.alpha * (1 - ratio) * ahead
        x0_prev, h_prev = x0, h
    return x


def heun(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, sigma_max: float = 80.0) -> Tensor:
    """Sample by Heun's method (Karras et al. 2022, algorithm 1), applied to x / alpha, with two evaluations per step.

    Two kinds of steps are Euler steps with one evaluation. (1) The last step, to sigma = 0. (2) Steps that start at
    sigma / alpha > ``sigma_max`` (their table 1): the image is invisible there, and the next level is so far away that
    the mean of two slopes is inaccurate.
    """
    for cur, nxt in pairwise(steps):
        x0 = denoise(x, cur)
        euler = nxt.alpha * x0 + nxt.sigma / cur.sigma * (x - cur.alpha * x0)
        if nxt.sigma > 0 and cur.sigma <= sigma_max * cur.alpha:
            level_cur, level_nxt = cur.sigma / cur.alpha, nxt.sigma / nxt.alpha
            slope_cur = (x / cur.alpha - x0) / level_cur
            slope_nxt = (euler / nxt.alpha - denoise(euler, nxt)) / level_nxt
            x = nxt.alpha * (x / cur.alpha + (level_nxt - level_cur) / 2 * (slope_cur + slope_nxt))
        else:
            x = euler
    return x


class Sampler(NamedTuple):
    """An entry of ``SAMPLERS``.

    Attributes:
        sample: function of this module, called as described at the top.
        options: names of the function's options; each maps to the name of a parameter in the group ``sampling``.
        stochastic: function of the options: whether the sampler adds noise at each step.
        evaluations_per_step: largest number of evaluations of the network in one step.
    """

    sample: Callable[..., Tensor]
    options: Mapping[str, str] = {}
    stochastic: Callable[[Mapping[str, Any]], bool] = lambda options: False
    evaluations_per_step: int = 1


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(ddpm, options={"variance": "ddpm_variance"}, stochastic=lambda options: True),
    "ddim": Sampler(ddim, options={"eta": "ddim_eta"}, stochastic=lambda options: options.get("eta", 0) > 0),
    "dpm_solver++": Sampler(dpm_solver),
    "heun": Sampler(heun, evaluations_per_step=2),
}
