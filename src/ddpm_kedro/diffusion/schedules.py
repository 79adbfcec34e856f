"""Noise schedules: tables of (c_noise, alpha, sigma, c_in) with x_t = alpha · x_0 + sigma · noise.

The variance-preserving schedules of DDPM, EDM and rectified flow are such tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ddpm_kedro.diffusion.spacings import SPACINGS
from ddpm_kedro.diffusion.targets import SIGMA_DATA, TARGETS, WEIGHTINGS
from ddpm_kedro.parameters import DiffusionParameters


class Step(NamedTuple):
    """One row of a schedule, as plain numbers: so a sampler never waits for the GPU."""

    c_noise: float
    alpha: float
    sigma: float
    c_in: float = 1.0


CLEAN = Step(c_noise=-1, alpha=1.0, sigma=0.0)
"""The last row of every sampler's steps. The network is not evaluated there."""


@dataclass(frozen=True)
class Schedule:
    """The table of x_t = alpha_t · x_0 + sigma_t · noise for the rows t = 0 … T-1, from the least noise to the most.

    All columns are (T,), in float64 at first and in float32 after :meth:`to`.

    Attributes:
        alpha: factor of x_0; for DDPM, the square root of alphas_cumprod (Ho et al. 2020, eq. 4).
        sigma: factor of the noise; for DDPM, the square root of 1 - alphas_cumprod.
        c_noise: the timestep that the network is given (Karras et al. 2022, eq. 7).
        c_in: the factor of x_t at the input of the network (Karras et al. 2022, eq. 7).
        cdf: cumulative probability with which training samples the rows; 1 in the last row.
        weight: weight of the loss in each row.
    """

    alpha: Tensor
    sigma: Tensor
    c_noise: Tensor
    c_in: Tensor
    cdf: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.alpha)

    def to(self, device: torch.device | str) -> Self:
        """Return the table in float32 on ``device``, for training."""
        return type(self)(*(getattr(self, field.name).float().to(device) for field in fields(self)))

    def indices(self, uniform: Tensor) -> Tensor:
        """Return the rows (N,) int64 to train at, for uniform random numbers (N,) in [0, 1)."""
        return torch.searchsorted(self.cdf, uniform, right=True).clamp(max=len(self) - 1)

    def add_noise(self, x0: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
        """Return x_t of the forward process q(x_t | x_0) at rows (N,) of the schedule (Ho et al. 2020, eq. 4).

        ``x0``, the standard normal ``noise`` and x_t are (N, C, H, W).
        """
        alpha, sigma = self.at(indices)
        return alpha * x0 + sigma * noise

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma of rows (N,), each (N, 1, 1, 1) to multiply images."""
        return self.alpha[indices][:, None, None, None], self.sigma[indices][:, None, None, None]

    def step(self, index: int) -> Step:
        """Return a row as plain numbers."""
        return Step(*(float(column[index]) for column in (self.c_noise, self.alpha, self.sigma, self.c_in)))

    def steps(self, num_inference_steps: int, spacing: str = "trailing", rho: float = 7.0) -> tuple[Step, ...]:
        """Return the rows that a sampler visits, from the noisiest down, and then ``CLEAN``.

        ``spacing`` is a name in ``SPACINGS``; only "karras" uses ``rho``.

        Raises:
            ValueError: for more steps than timesteps, or a spacing that this schedule does not allow.
        """
        if not 1 <= num_inference_steps <= len(self):
            raise ValueError(
                f"num_inference_steps = {num_inference_steps} is not between 1 and the {len(self)} timesteps"
            )
        if spacing == "leading" and float(self.alpha[-1]) == 0:
            raise ValueError(
                "a schedule that ends in pure noise must be sampled from its end: not with leading spacing"
            )
        indices = SPACINGS[spacing](self.sigma / self.alpha, num_inference_steps, rho)
        return *(self.step(index) for index in indices), CLEAN


def linear_betas(p: DiffusionParameters) -> Tensor:
    """Return betas that rise linearly (Ho et al. 2020, section 4). (T,) float64."""
    return torch.linspace(p.beta_start, p.beta_end, p.num_timesteps, dtype=torch.float64)


def scaled_linear_betas(p: DiffusionParameters) -> Tensor:
    """Return betas whose square roots rise linearly (Rombach et al. 2022, latent diffusion). (T,) float64."""
    return torch.linspace(p.beta_start**0.5, p.beta_end**0.5, p.num_timesteps, dtype=torch.float64) ** 2


def cosine_betas(p: DiffusionParameters) -> Tensor:
    """Return the betas for which alphas_cumprod follows a squared cosine; each is at most 0.999. (T,) float64.

    This is eq. 17 of Nichol and Dhariwal (2021).
    """
    time = torch.arange(p.num_timesteps + 1, dtype=torch.float64) / p.num_timesteps
    alphas_cumprod = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)


def sigmoid_betas(p: DiffusionParameters) -> Tensor:
    """Return betas that rise along a sigmoid (Xu et al. 2022, GeoDiff). (T,) float64."""
    rise = torch.linspace(-6, 6, p.num_timesteps, dtype=torch.float64).sigmoid()
    return p.beta_start + (p.beta_end - p.beta_start) * rise


BETAS: dict[str, Callable[[DiffusionParameters], Tensor]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "cosine": cosine_betas,
    "sigmoid": sigmoid_betas,
}


def variance_preserving(p: DiffusionParameters) -> dict[str, Tensor]:
    """Return a table with alpha² + sigma² = 1 (Ho et al. 2020, eq. 4), from the betas that ``p.schedule`` names."""
    alpha = torch.cumprod(1 - BETAS[p.schedule](p), dim=0).sqrt()
    if p.zero_terminal_snr:  # the last alpha becomes 0, the first stays (Lin et al. 2024, algorithm 1)
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    return {"alpha": alpha, "sigma": (1 - alpha**2).sqrt()}


def edm(p: DiffusionParameters) -> dict[str, Tensor]:
    """Return a table that does not scale x_0; noise levels are log-normal in training (Karras et al. 2022, table 1)."""
    ramp = torch.linspace(p.sigma_min ** (1 / p.rho), p.sigma_max ** (1 / p.rho), p.num_timesteps, dtype=torch.float64)
    sigma = ramp**p.rho  # eq. 5
    edges = (sigma[1:] * sigma[:-1]).sqrt().log()  # boundaries between the rows
    below = torch.special.ndtr((edges - p.log_sigma_mean) / p.log_sigma_std)
    return {
        "alpha": torch.ones_like(sigma),
        "sigma": sigma,
        "c_noise": sigma.log() / 4,
        "c_in": (sigma**2 + SIGMA_DATA**2).rsqrt(),
        "cdf": torch.cat([below, torch.ones(1, dtype=torch.float64)]),
    }


def flow(p: DiffusionParameters) -> dict[str, Tensor]:
    """Return the table of a straight line between noise and x_0 (Liu et al. 2023, rectified flow, eq. 1)."""
    time = torch.arange(1, p.num_timesteps + 1, dtype=torch.float64) / p.num_timesteps
    return {"alpha": 1 - time, "sigma": time, "c_noise": 1000 * time}


TABLES: dict[str, Callable[[DiffusionParameters], dict[str, Tensor]]] = {
    **dict.fromkeys(BETAS, variance_preserving),
    "edm": edm,
    "flow": flow,
}


def make_schedule(parameters: DiffusionParameters) -> Schedule:
    """Compute the schedule that ``parameters.schedule`` names, in float64."""
    indices = torch.arange(parameters.num_timesteps, dtype=torch.float64)
    defaults = {"c_noise": indices, "c_in": torch.ones_like(indices), "cdf": (indices + 1) / len(indices)}
    table = defaults | TABLES[parameters.schedule](parameters)
    weight = WEIGHTINGS[parameters.weighting](TARGETS[parameters.target], table["alpha"], table["sigma"], parameters)
    return Schedule(**table, weight=weight)
