"""Noise schedules: tables of (timestep, alpha, sigma) with x_t = alpha · x_0 + sigma · noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ddpm_kedro.parameters import DiffusionParameters


class Step(NamedTuple):
    """One row of a schedule, as plain numbers: a sampler computes with them without touching a device."""

    timestep: float
    alpha: float
    sigma: float


CLEAN = Step(timestep=-1, alpha=1.0, sigma=0.0)
"""Where every sampler ends. The network is never asked there."""


@dataclass(frozen=True)
class Schedule:
    """x_t = alpha_t · x_0 + sigma_t · noise for t = 0 … T-1 (Ho et al. 2020, eq. 4).

    Attributes:
        alpha: (T,), the square root of alphas_cumprod. float64 as made, float32 after :meth:`to`.
        sigma: (T,), the square root of 1 - alphas_cumprod, likewise.
    """

    alpha: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.alpha)

    def to(self, device: torch.device | str) -> Self:
        """The table in float32 on ``device``, for training."""
        return type(self)(self.alpha.float().to(device), self.sigma.float().to(device))

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

    def steps(self, num_inference_steps: int) -> tuple[Step, ...]:
        """The rows a sampler visits, from the noisiest (always T-1) down, and then ``CLEAN``.

        Evenly spaced from the end ("trailing": Lin et al. 2024, table 2), so that sampling starts where training ended.

        Raises:
            ValueError: more steps than timesteps.
        """
        total = len(self)
        if not 1 <= num_inference_steps <= total:
            raise ValueError(f"num_inference_steps = {num_inference_steps} is not between 1 and the {total} timesteps")
        chosen = [round(total - k * total / num_inference_steps) - 1 for k in range(num_inference_steps)]
        return *(Step(t, float(self.alpha[t]), float(self.sigma[t])) for t in chosen), CLEAN


def linear_betas(p: DiffusionParameters) -> Tensor:
    """Betas that rise linearly (Ho et al. 2020, section 4). (T,) float64."""
    return torch.linspace(p.beta_start, p.beta_end, p.num_timesteps, dtype=torch.float64)


def cosine_betas(p: DiffusionParameters) -> Tensor:
    """Betas of a squared cosine, at most 0.999 (Nichol and Dhariwal 2021, eq. 17). (T,) float64."""
    time = torch.arange(p.num_timesteps + 1, dtype=torch.float64) / p.num_timesteps
    alphas_cumprod = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)


BETAS: dict[str, Callable[[DiffusionParameters], Tensor]] = {"linear": linear_betas, "cosine": cosine_betas}


def make_schedule(parameters: DiffusionParameters) -> Schedule:
    """The schedule that ``diffusion.schedule`` names, computed in float64."""
    alphas_cumprod = torch.cumprod(1 - BETAS[parameters.schedule](parameters), dim=0)
    return Schedule(alpha=alphas_cumprod.sqrt(), sigma=(1 - alphas_cumprod).sqrt())
