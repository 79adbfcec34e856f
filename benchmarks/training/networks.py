"""The same U-Net in three projects, as near as each can come."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from denoising_diffusion_pytorch import Unet
from denoising_diffusion_pytorch.classifier_free_guidance import Unet as ClassUnet
from diffusers import UNet2DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_kedro.parameters import ModelParameters


@dataclass(frozen=True)
class Shape:
    """What a U-Net looks like; the defaults are google/ddpm-cifar10-32's, 35.7 M parameters.

    Attributes:
        size: pixels of a side; a network whose levels do not divide it is given padded pictures.
        classes: 0 for none.
        head_channels: of one attention head; None for a single head. lucidrains has four heads of 32 always.
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
        """Pixels that are lacking to a size that halves at every level."""
        return -self.size % 2 ** (len(self.multipliers) - 1)


def our_parameters(shape: Shape) -> ModelParameters:
    """Of our U-Net."""
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


def diffusers_network(shape: Shape) -> UNet2DModel:
    """Diffusers' U-Net, with one class more for the empty label."""
    levels = range(len(shape.multipliers))
    attention = ["Attn" if level in shape.attention else "" for level in levels]
    return UNet2DModel(
        sample_size=shape.size + shape.padding,
        in_channels=shape.channels,
        out_channels=shape.channels,
        block_out_channels=tuple(shape.width * m for m in shape.multipliers),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attention)),
        layers_per_block=shape.blocks,
        norm_num_groups=shape.groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=0.0,
        attention_head_dim=shape.head_channels,
        num_class_embeds=shape.classes + 1 if shape.classes else None,
    )


def lucidrains_network(shape: Shape, label_dropout: float = 0.1) -> nn.Module:
    """Lucidrains' U-Net: two blocks a level always, linear attention on every level that has no full attention."""
    if shape.classes:
        return ClassUnet(
            shape.width,
            num_classes=shape.classes,
            cond_drop_prob=label_dropout,
            dim_mults=shape.multipliers,
            channels=shape.channels,
        )
    full = tuple(level in shape.attention for level in range(len(shape.multipliers)))
    return Unet(shape.width, dim_mults=shape.multipliers, channels=shape.channels, full_attn=full)


def parameter_count(network: nn.Module) -> int:
    """Weights that are trained."""
    return sum(weight.numel() for weight in network.parameters())


def flops_per_image(network: nn.Module, shape: Shape) -> float:
    """Floating-point operations of one image, forward and backward.

    Counted without computing, on torch's meta device: the CPU's fused attention is one that torch does not count.
    """
    ghost = copy.deepcopy(network).to("meta")
    side = shape.size + shape.padding
    x, t = torch.empty(2, shape.channels, side, side, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    labels: tuple[Any, ...] = (torch.zeros_like(t),) if shape.classes else ()
    with FlopCounterMode(display=False) as counter:
        output = ghost(x, t, *labels)
        getattr(output, "sample", output).square().mean().backward()
    return counter.get_total_flops() / len(x)
