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
    indices: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
    augmentation: Tensor | None = None,
) -> Tensor:
    """Return the loss of each image (Ho et al. 2020, eq. 14), (N,) float32.

    It is the mean squared error of the network's prediction at x_t, multiplied by the schedule's weight.

    Args:
        x0: images (N, C, H, W) in [-1, 1].
        indices: rows of the schedule, (N,) int64.
        noise: standard normal noise with the shape, dtype and device of ``x0``.
        labels: classes of the images, (N,) int64, or None.
        augmentation: labels of a non-leaking augmentation of the images, (N, K), or None.
    """
    xt = schedule.add_noise(x0, noise, indices)
    c_in = schedule.c_in[indices][:, None, None, None]
    done = () if augmentation is None else (augmentation,)
    prediction = network(c_in * xt, schedule.c_noise[indices], labels, *done)
    expected = target.compute(x0, noise, *schedule.at(indices))
    error = F.mse_loss(prediction.float(), expected, reduction="none").mean(dim=(1, 2, 3))
    return schedule.weight[indices] * error
