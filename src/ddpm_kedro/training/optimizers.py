"""The optimizer, its learning rate, and the EMA of the weights."""

import math
from collections.abc import Callable, Iterable
from pkgutil import resolve_name

import torch
from torch import nn

from ddpm_kedro.parameters import TrainingParameters
from ddpm_kedro.parameters.optimizer import OPTIMIZERS, OptimizerParameters


def make_optimizer(weights: Iterable[nn.Parameter], p: OptimizerParameters) -> torch.optim.Optimizer:
    """Return the optimizer of these weights."""
    kind = OPTIMIZERS[p.name]
    hyperparameters = {name: getattr(p, name) for name in kind.hyperparameters}
    build: Callable[..., torch.optim.Optimizer] = resolve_name(kind.path)
    return build(weights, lr=p.lr, weight_decay=p.weight_decay, **hyperparameters, **kind.options)


def learning_rate(images_seen: int, num_images: int, p: OptimizerParameters) -> float:
    """Return the learning rate after ``images_seen`` images: linear warm-up, then constant or half a cosine."""
    warmup = min(1.0, images_seen / p.warmup_images) if p.warmup_images else 1.0
    if p.lr_schedule == "constant":
        return p.lr * warmup
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, images_seen / num_images)))
    return p.lr * warmup * (p.final_lr_fraction + (1 - p.final_lr_fraction) * cosine)


def recommended_learning_rate(width: int, batch_size: int) -> float:
    """Return a peak learning rate for Adam with a cosine schedule: 8e-4 · (128 / width) · √(batch size / 256).

    Under Adam, the best learning rate of a network falls as 1 / width (Yang et al. 2022, "Tensor Programs V")
    and grows with the square root of the batch size, as long as the batch is small (Malladi et al. 2022, "On the SDEs
    and Scaling Rules for Adaptive Gradient Algorithms"). The constant is that of the project's training on CIFAR-10
    (docs/training.md: width 128, batch 256). For comparison:

    ========================  =====  =====  =======  ===============
    recipe                    width  batch  used     by this formula
    ========================  =====  =====  =======  ===============
    digits (``use.model``)    16     32     3.0e-3   2.3e-3
    EDM, CIFAR-10             128    512    1.0e-3   1.1e-3
    Ho et al. 2020, CIFAR-10  128    128    2.0e-4   5.7e-4
    ========================  =====  =====  =======  ===============

    The learning rate of Ho et al. is constant over 800,000 steps. No result is above 3e-3, the highest rate that this
    project has trained with.

    Args:
        width: channels at full resolution, ``model.width``.
        batch_size: images per step.
    """
    return min(3e-3, 8e-4 * (128 / width) * math.sqrt(batch_size / 256))


def recommended_warmup(num_images: int) -> int:
    """Return the length of the warm-up in images: 5 % of the training, as for EDM on CIFAR-10 (Karras et al. 2022).

    There, the learning rate rises over 10 of 200 million images.
    """
    return num_images // 20


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of each weight the weight's memory format, which may differ from the format when it was saved.

    Fused optimizers read both in memory order and do not check the formats.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight).copy_(value)


def ema_decay(images_seen: int, p: TrainingParameters) -> float:
    """Return the decay of the EMA in the step after ``images_seen`` images, as in EDM's code (Karras et al. 2022).

    decay = 0.5 ^ (batch size / half-life). The half-life is at most ``ema_rampup_ratio`` of the images seen so far, so
    that the EMA forgets the random initial weights; the first decay is then 0. The decay does not depend on the length
    of the training: a longer training has the same weights on its way.
    """
    limit = math.inf if p.ema_rampup_ratio is None else p.ema_rampup_ratio * images_seen
    return 0.5 ** (p.batch_size / max(min(p.ema_half_life, limit), 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the exponential moving average of the parameters, ema ← decay · ema + (1 - decay) · network.

    The network may have parameters that the EMA lacks. Buffers hold constant tables and are left alone.
    """
    averaged, current = dict(ema.named_parameters()), dict(network.named_parameters())
    torch._foreach_lerp_(list(averaged.values()), [current[name] for name in averaged], 1 - decay)
