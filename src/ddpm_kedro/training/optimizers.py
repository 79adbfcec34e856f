"""The optimizer, its learning rate, and the EMA of the weights."""

import math
from collections.abc import Callable, Iterable
from pkgutil import resolve_name

import torch
from torch import nn

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


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of each weight the weight's memory format, which may differ from the format when it was saved.

    Fused optimizers read both in memory order and do not check the formats.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight).copy_(value)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Update the exponential moving average of the parameters, ema ← d · ema + (1 - d) · network.

    Early on d = (1 + step) / (10 + step), so that the EMA forgets the random initial weights. Buffers hold constant
    tables and are left alone.
    """
    warmed_up = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - warmed_up)
