"""Noise schedules: tables of (timestep, alpha, sigma, scale) with x_t = alpha · x_0 + sigma · noise.

The variance-preserving schedules of DDPM, EDM and rectified flow are such tables, and nothing else.
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
    """One row of a schedule, as plain numbers: a sampler computes with them without touching a device."""

    timestep: float
    alpha: float
    sigma: float
    scale: float = 1.0


CLEAN = Step(timestep=-1, alpha=1.0, sigma=0.0)
"""Where every sampler ends. The network is never asked there."""


@dataclass(frozen=True)
class Schedule:
    """x_t = alpha_t · x_0 + sigma_t · noise for the rows t = 0 … T-1, from the least noise to the most.

    All are (T,), in float64 as made and in float32 after :meth:`to`.

    Attributes:
        alpha: for DDPM, the square root of alphas_cumprod (Ho et al. 2020, eq. 4).
        sigma: for DDPM, the square root of 1 - alphas_cumprod.
        timestep: what the network is told.
        scale: what x_t is multiplied with before the network sees it.
        cumulative: how much of training is spent up to each row, 1 at the last.
        weight: of the loss.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor
    scale: Tensor
    cumulative: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.alpha)

    def to(self, device: torch.device | str) -> Self:
        """The table in float32 on ``device``, for training."""
        return type(self)(*(getattr(self, field.name).float().to(device) for field in fields(self)))

    def rows(self, uniform: Tensor) -> Tensor:
        """The rows (N,) int64 that training visits for uniform random numbers (N,) in [0, 1)."""
        return torch.searchsorted(self.cumulative, uniform, right=True).clamp(max=len(self) - 1)

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The forward process q(x_t | x_0), Ho et al. (2020), eq. 4.

        Args:
            x0: (N, C, H, W) in [-1, 1].
            noise: like ``x0``, standard normal.
            timesteps: (N,) int64 in [0, T).

        Returns:
            x_t, like ``x0``.
        """
        alpha, sigma = self.at(timesteps)
        return alpha * x0 + sigma * noise

    def at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of each timestep (N,), shaped (N, 1, 1, 1) to multiply pictures."""
        return self.alpha[timesteps][:, None, None, None], self.sigma[timesteps][:, None, None, None]

    def step(self, row: int) -> Step:
        """A row as plain numbers."""
        return Step(*(float(column[row]) for column in (self.timestep, self.alpha, self.sigma, self.scale)))

    def steps(self, num_inference_steps: int, spacing: str = "trailing", rho: float = 7.0) -> tuple[Step, ...]:
        """The rows a sampler visits, from the noisiest down, and then ``CLEAN``.

        Args:
            spacing: a name in ``SPACINGS``.
            rho: of the spacing "karras".

        Raises:
            ValueError: more steps than timesteps, or a spacing that is impossible here.
        """
        if not 1 <= num_inference_steps <= len(self):
            raise ValueError(
                f"num_inference_steps = {num_inference_steps} is not between 1 and the {len(self)} timesteps"
            )
        if spacing == "leading" and float(self.alpha[-1]) == 0:
            raise ValueError(
                "a schedule that ends in pure noise must be sampled from its end: not with leading spacing"
            )
        rows = SPACINGS[spacing](self.sigma / self.alpha, num_inference_steps, rho)
        return *(self.step(row) for row in rows), CLEAN


def linear_betas(p: DiffusionParameters) -> Tensor:
    """Betas that rise linearly (Ho et al. 2020, section 4). (T,) float64."""
    return torch.linspace(p.beta_start, p.beta_end, p.num_timesteps, dtype=torch.float64)


def scaled_linear_betas(p: DiffusionParameters) -> Tensor:
    """Betas whose square roots rise linearly (Rombach et al. 2022, latent diffusion). (T,) float64."""
    return torch.linspace(p.beta_start**0.5, p.beta_end**0.5, p.num_timesteps, dtype=torch.float64) ** 2


def cosine_betas(p: DiffusionParameters) -> Tensor:
    """Betas of a squared cosine, at most 0.999 (Nichol and Dhariwal 2021, eq. 17). (T,) float64."""
    time = torch.arange(p.num_timesteps + 1, dtype=torch.float64) / p.num_timesteps
    alphas_cumprod = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)


def sigmoid_betas(p: DiffusionParameters) -> Tensor:
    """Betas that rise along a sigmoid (Xu et al. 2022, GeoDiff). (T,) float64."""
    rise = torch.linspace(-6, 6, p.num_timesteps, dtype=torch.float64).sigmoid()
    return p.beta_start + (p.beta_end - p.beta_start) * rise


BETAS: dict[str, Callable[[DiffusionParameters], Tensor]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "cosine": cosine_betas,
    "sigmoid": sigmoid_betas,
}


def to_zero_terminal_snr(alpha: Tensor) -> Tensor:
    """Shift and stretch alphas (T,) so that the last is 0 and the first as before (Lin et al. 2024, algorithm 1)."""
    return (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])


def variance_preserving(p: DiffusionParameters) -> dict[str, Tensor]:
    """alpha² + sigma² = 1 (Ho et al. 2020, eq. 4), from the betas that ``p.schedule`` names."""
    alpha = torch.cumprod(1 - BETAS[p.schedule](p), dim=0).sqrt()
    if p.zero_terminal_snr:
        alpha = to_zero_terminal_snr(alpha)
    return {"alpha": alpha, "sigma": (1 - alpha**2).sqrt()}


def edm(p: DiffusionParameters) -> dict[str, Tensor]:
    """Noise is added to x_0 as it is; noise levels are log-normal in training (Karras et al. 2022, table 1)."""
    ramp = torch.linspace(p.sigma_min ** (1 / p.rho), p.sigma_max ** (1 / p.rho), p.num_timesteps, dtype=torch.float64)
    sigma = ramp**p.rho  # eq. 5
    edges = (sigma[1:] * sigma[:-1]).sqrt().log()  # between the rows
    below = torch.special.ndtr((edges - p.log_sigma_mean) / p.log_sigma_std)
    return {
        "alpha": torch.ones_like(sigma),
        "sigma": sigma,
        "timestep": sigma.log() / 4,  # c_noise
        "scale": (sigma**2 + SIGMA_DATA**2).rsqrt(),  # c_in
        "cumulative": torch.cat([below, torch.ones(1, dtype=torch.float64)]),
    }


def flow(p: DiffusionParameters) -> dict[str, Tensor]:
    """The straight line between noise and x_0 (Liu et al. 2023, rectified flow, eq. 1)."""
    time = torch.arange(1, p.num_timesteps + 1, dtype=torch.float64) / p.num_timesteps
    return {"alpha": 1 - time, "sigma": time, "timestep": 1000 * time}


TABLES: dict[str, Callable[[DiffusionParameters], dict[str, Tensor]]] = {
    **dict.fromkeys(BETAS, variance_preserving),
    "edm": edm,
    "flow": flow,
}


def make_schedule(parameters: DiffusionParameters) -> Schedule:
    """The schedule that ``diffusion.schedule`` names, computed in float64."""
    rows = torch.arange(parameters.num_timesteps, dtype=torch.float64)
    usual = {"timestep": rows, "scale": torch.ones_like(rows), "cumulative": (rows + 1) / len(rows)}
    table = usual | TABLES[parameters.schedule](parameters)
    weight = WEIGHTINGS[parameters.weighting](TARGETS[parameters.target], table["alpha"], table["sigma"], parameters)
    return Schedule(**table, weight=weight)
