"""Samplers: from noise to images, without knowing the network or its target.

All are called as ``sampler(denoise, x, steps, noise, **options)``:

- ``denoise(x, step)`` returns the predicted x_0 at ``x`` (N, C, H, W);
- ``x`` is x_t of the first step: standard normal noise times its sigma, or a noised image;
- ``steps`` are the rows of the schedule to visit, the last without noise (:meth:`Schedule.steps`);
- ``noise()`` returns new standard normal noise like ``x``.

They return x_0. The last step of each leads to no noise at all ("denoise to zero"), where x is the predicted x_0.
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
    ``variance``: "small" is the variance of the posterior (beta tilde), "large" of the forward step (beta).
    """
    for cur, nxt in pairwise(steps):
        x0 = denoise(x, cur)
        alpha = cur.alpha / nxt.alpha  # of the forward step from nxt to cur
        beta = cur.sigma**2 - (alpha * nxt.sigma) ** 2
        coef_x0 = nxt.alpha * beta / cur.sigma**2
        coef_xt = alpha * (nxt.sigma / cur.sigma) ** 2
        x = coef_x0 * x0 + coef_xt * x
        if nxt.sigma > 0:
            x = x + ((beta if variance == "large" else beta * (nxt.sigma / cur.sigma) ** 2) ** 0.5) * noise()
    return x


def ddim(denoise: Denoise, x: Tensor, steps: Sequence[Step], noise: Noise, eta: float = 0.0) -> Tensor:
    """Sample by DDIM (Song et al. 2021, eq. 12 and 16): deterministic for eta = 0, ancestral for eta = 1.

    The predicted noise is derived from the thresholded x_0, so that both always explain ``x``.
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
    """Sample by Heun's method (Karras et al. 2022, algorithm 1) in x / alpha, with two evaluations per step.

    Two kinds of steps are Euler's, with one evaluation: the last, which leads to no noise, and those from noise levels
    sigma / alpha above ``sigma_max`` (their table 1), where the image is invisible and the next level too far for the
    mean of two slopes.
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
        sample: the function, called as the module describes.
        options: its options, each with the name of its parameter in the group ``sampling``.
        stochastic: whether it adds noise at each step, given its options.
        evaluations_per_step: evaluations of the network in one step, at most.
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
