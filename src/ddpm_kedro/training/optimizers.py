"""Optimizers, the learning rate, and the average of the weights."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from ddpm_kedro.parameters import OptimizerParameters

Weights = Iterable[nn.Parameter]


def _adam(kind: type[torch.optim.Adam], weights: Weights, p: OptimizerParameters) -> torch.optim.Optimizer:
    assert p.betas is not None  # the parameters were checked
    return kind(weights, lr=p.lr, betas=p.betas, weight_decay=p.weight_decay, fused=True)


def _sgd(weights: Weights, p: OptimizerParameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=p.lr, momentum=p.momentum or 0, weight_decay=p.weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[[Weights, OptimizerParameters], torch.optim.Optimizer]] = {
    "adam": lambda weights, p: _adam(torch.optim.Adam, weights, p),
    "adamw": lambda weights, p: _adam(torch.optim.AdamW, weights, p),
    "sgd": _sgd,
}


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
def update_ema(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of the parameters alone, average ← d · average + (1 - d) · network.

    Early on d = (1 + step) / (10 + step), so that the average forgets the random start. Only parameters are
    averaged: tables kept as buffers must stay as they are.
    """
    warmed_up = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - warmed_up)
