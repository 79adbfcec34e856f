"""The optimizer, its learning rate, and the EMA of the weights."""

import math
from collections.abc import Callable, Iterable
from pkgutil import resolve_name

import torch
from torch import nn

from ddpm_kedro.parameters.training import OPTIMIZERS, OptimizerParameters


def make_optimizer(weights: Iterable[nn.Parameter], p: OptimizerParameters) -> torch.optim.Optimizer:
    """Return the optimizer of these weights."""
    kind = OPTIMIZERS[p.name]
    hyperparameters = {name: getattr(p, name) for name in kind.hyperparameters}
    build: Callable[..., torch.optim.Optimizer] = resolve_name(kind.path)
    return build(weights, lr=p.lr, weight_decay=p.weight_decay, **hyperparameters, **kind.options)


def learning_rate(images_seen: int, num_images: int, p: OptimizerParameters) -> float:
    """The learning rate after ``images_seen`` of ``num_images``: linear warm-up, then constant or half a cosine."""
    warmup = min(1.0, images_seen / p.warmup_images) if p.warmup_images else 1.0
    if p.lr_schedule == "constant":
        return p.lr * warmup
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, images_seen / num_images)))
    return p.lr * warmup * (p.final_lr_fraction + (1 - p.final_lr_fraction) * cosine)


def lay_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Put the state of each weight in memory as the weight lies there, which may be otherwise than where it was saved.

    Fused optimizers go through both side by side, and would not notice.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight).copy_(value)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of the parameters alone, average ← d · average + (1 - d) · network.

    Early on d = (1 + step) / (10 + step), so that the average forgets the random start. Only parameters are
    averaged: tables kept as buffers must stay as they are.
    """
    warmed_up = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - warmed_up)
