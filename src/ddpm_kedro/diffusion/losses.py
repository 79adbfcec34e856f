"""The training loss."""

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.diffusion.schedules import Schedule
from ddpm_kedro.diffusion.targets import Target


def diffusion_loss(
    network: nn.Module,
    schedule: Schedule,
    target: Target,
    x0: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    """Squared error of the network's prediction at x_t (Ho et al. 2020, eq. 14), averaged over each picture.

    Args:
        x0: (N, C, H, W) in [-1, 1].
        timesteps: (N,) int64, rows of the schedule.
        noise: like ``x0``, standard normal.
        labels: (N,) int64, or None.

    Returns:
        (N,) float32, each times the schedule's weight.
    """
    xt = schedule.add_noise(x0, noise, timesteps)
    scale = schedule.scale[timesteps][:, None, None, None]
    prediction = network(scale * xt, schedule.timestep[timesteps], labels)
    wanted = target.make(x0, noise, *schedule.at(timesteps))
    error = F.mse_loss(prediction.float(), wanted, reduction="none").mean(dim=(1, 2, 3))
    return schedule.weight[timesteps] * error
