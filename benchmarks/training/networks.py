"""The measured U-Net: its shape, our network of that shape, and its floating-point operations."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_kedro.parameters import ModelParameters


@dataclass(frozen=True)
class Shape:
    """The shape of a U-Net; the defaults are google/ddpm-cifar10-32's (35.7 M parameters).

    Attributes:
        size: pixels per side; images are padded if the network's levels do not divide it.
        classes: 0 for none.
        head_channels: channels per attention head; None for a single head. lucidrains always has four heads of 32.
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    attention: tuple[int, ...] = (1,)
    blocks: int = 2
    groups: int = 32
    channels: int = 3
    size: int = 32
    classes: int = 0
    head_channels: int | None = None

    @property
    def padding(self) -> int:
        """Return the pixels to add, so that the size can be halved at each level."""
        return -self.size % 2 ** (len(self.multipliers) - 1)


def our_parameters(shape: Shape) -> ModelParameters:
    """Return the parameters of our U-Net."""
    return ModelParameters(
        width=shape.width,
        channel_multipliers=shape.multipliers,
        blocks_per_level=shape.blocks,
        attention_levels=shape.attention,
        head_channels=shape.head_channels,
        norm_groups=shape.groups,
        norm_eps=1e-6,
        dropout=0.0,
        patch_size=1,
        class_conditional=bool(shape.classes),
    )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(weight.numel() for weight in network.parameters())


def flops_per_image(network: nn.Module, shape: Shape) -> float:
    """Count the floating-point operations of one image, forward and backward.

    They are counted on torch's meta device, since torch does not count the CPU's fused attention.
    """
    ghost = copy.deepcopy(network).to("meta")
    side = shape.size + shape.padding
    x, t = torch.empty(2, shape.channels, side, side, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    labels: tuple[Any, ...] = (torch.zeros_like(t),) if shape.classes else ()
    with FlopCounterMode(display=False) as counter:
        output = ghost(x, t, *labels)
        getattr(output, "sample", output).square().mean().backward()
    return counter.get_total_flops() / len(x)
