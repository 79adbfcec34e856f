"""The U-Net of Ho et al. (2020), Appendix B, in the layout of diffusers' ``UNet2DModel``."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm_kedro.models.blocks import (
    Downsample,
    GroupNorm,
    ResidualBlock,
    SelfAttention,
    TimestepMLP,
    Upsample,
    timestep_embedding,
    zero_init,
)
from ddpm_kedro.parameters import ModelParameters

Widths = list[tuple[int, int]]  # channels in and out of each residual block


class Level(nn.Module):
    """The blocks of one resolution: residual blocks, with or without attention after each."""

    def __init__(self, widths: Widths, attention: bool, embedding_width: int, p: ModelParameters) -> None:
        super().__init__()
        self.recompute = False
        self.resnets = nn.ModuleList(ResidualBlock(i, o, embedding_width, p) for i, o in widths)
        self.attentions = nn.ModuleList(SelfAttention(o, p) for _, o in widths if attention)

    def step(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply residual block ``index``, and its attention if this level has any."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._step, index, x, embedding, use_reentrant=False)
        return self._step(index, x, embedding)

    def _step(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[index](x, embedding)
        return self.attentions[index](x) if self.attentions else x


class DownLevel(Level):
    """One resolution of the encoder; every intermediate result is a skip connection for the decoder."""

    def __init__(self, widths: Widths, attention: bool, last: bool, embedding_width: int, p: ModelParameters) -> None:
        super().__init__(widths, attention, embedding_width, p)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(widths[-1][1])])

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, C, H, W) → (N, C', H/2, W/2) and the skip connections."""
        skips = []
        for index in range(len(self.resnets)):
            x = self.step(index, x, embedding)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x, skips


class MiddleLevel(Level):
    """The bottom: a residual block, attention, a residual block."""

    def __init__(self, width: int, embedding_width: int, p: ModelParameters) -> None:
        super().__init__([(width, width)] * 2, False, embedding_width, p)
        self.attentions = nn.ModuleList([SelfAttention(width, p)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x, embedding)), embedding)


class UpLevel(Level):
    """One resolution of the decoder; every block receives a skip connection."""

    def __init__(self, widths: Widths, attention: bool, last: bool, embedding_width: int, p: ModelParameters) -> None:
        super().__init__(widths, attention, embedding_width, p)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(widths[-1][1])])

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', 2H, 2W); removes its skip connections from the end of ``skips``."""
        for index in range(len(self.resnets)):
            x = self.step(index, torch.cat([x, skips.pop()], dim=1), embedding)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


class UNet(nn.Module):
    """Predict the training target from a noised image, its timestep and its class.

    Args:
        parameters: width, depth and attention of the network; see :class:`~ddpm_kedro.parameters.ModelParameters`.
        channels: number of channels of the input and output images.
        num_classes: number of classes; 0 for a model without classes. Class ``num_classes`` is the empty label of
            classifier-free guidance (Ho and Salimans 2022).
        augmentation_labels: number of labels of the non-leaking augmentation in training (Karras et al. 2022,
            appendix F); 0 for a network without them. Their embedding has no bias: labels of 0 add exactly 0.
    """

    def __init__(
        self, parameters: ModelParameters, channels: int, num_classes: int = 0, augmentation_labels: int = 0
    ) -> None:
        super().__init__()
        p = parameters
        self.width, self.patch_size, self.num_classes = p.width, p.patch_size, num_classes
        widths = [p.width * m for m in p.channel_multipliers]
        attention = [level in p.attention_levels for level in range(len(widths))]
        embedding_width = 4 * p.width
        patch_channels = channels * p.patch_size**2
        self.size_multiple = p.patch_size * 2 ** (len(widths) - 1)

        self.time_embedding = TimestepMLP(p.width, embedding_width)
        self.class_embedding = nn.Embedding(num_classes + 1, embedding_width) if num_classes else None
        self.conv_in = nn.Conv2d(patch_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        skip_widths, last = [widths[0]], len(widths) - 1
        for level, (before, width) in enumerate(pairwise([widths[0], *widths])):
            blocks = [(before, width)] + [(width, width)] * (p.blocks_per_level - 1)
            self.down_blocks.append(DownLevel(blocks, attention[level], level == last, embedding_width, p))
            skip_widths += [width] * (p.blocks_per_level + (level != last))
        self.mid_block = MiddleLevel(widths[-1], embedding_width, p)
        self.up_blocks = nn.ModuleList()
        for level, (width, before) in reversed([*enumerate(pairwise([*widths, widths[-1]]))]):
            ins = [before] + [width] * p.blocks_per_level
            blocks = [(i + skip_widths.pop(), width) for i in ins]
            self.up_blocks.append(UpLevel(blocks, attention[level], level == 0, embedding_width, p))
        self.conv_norm_out = GroupNorm(p.norm_groups, widths[0], eps=p.norm_eps)
        self.conv_out = zero_init(nn.Conv2d(widths[0], patch_channels, 3, padding=1))
        # The last one, so that the other weights start as without it.
        self.augmentation_embedding = (
            nn.Linear(augmentation_labels, embedding_width, bias=False) if augmentation_labels else None
        )

    def recompute_activations(self, recompute: bool) -> None:
        """Choose whether to keep only the inputs of blocks and recompute their activations in the backward pass."""
        for level in (*self.down_blocks, *self.up_blocks):
            level.recompute = recompute

    def forward(
        self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        """Predict for a batch, (N, C, H, W).

        Args:
            x: noised images, (N, C, H, W). If H or W is not a multiple of ``size_multiple``, the images are padded
                internally and cropped again.
            timesteps: timesteps of the images, (N,), integers or floats.
            labels: classes, (N,) int64 in [0, num_classes]; None means the empty label for all.
            augmentation: labels of the augmentation, (N, augmentation_labels); None means 0 for all.
        """
        height, width = x.shape[-2:]
        pad = (0, -width % self.size_multiple, 0, -height % self.size_multiple)
        h = F.pad(x, pad, mode="replicate") if any(pad) else x
        h = F.pixel_unshuffle(h, self.patch_size)
        embedding = F.silu(self.embed(timesteps, labels, augmentation))  # (N, E)
        h = self.conv_in(h)
        skips = [h]
        for down in self.down_blocks:
            h, new_skips = down(h, embedding)
            skips += new_skips
        h = self.mid_block(h, embedding)
        for up in self.up_blocks:
            h = up(h, skips, embedding)
        h = self.conv_out(F.silu(self.conv_norm_out(h)))
        return F.pixel_shuffle(h, self.patch_size)[..., :height, :width]

    def embed(self, timesteps: Tensor, labels: Tensor | None, augmentation: Tensor | None = None) -> Tensor:
        """Embed timesteps, classes and augmentation, (N, 4·width)."""
        embedding = self.time_embedding(timestep_embedding(timesteps, self.width))
        if augmentation is not None:
            if self.augmentation_embedding is None:
                raise ValueError("labels of an augmentation were given to a network without them")
            embedding = embedding + self.augmentation_embedding(augmentation)
        if self.class_embedding is None:
            if labels is not None:
                raise ValueError("labels were given to a model without classes (num_classes = 0)")
            return embedding
        if labels is None:
            labels = torch.full_like(timesteps, self.num_classes, dtype=torch.int64)
        return embedding + self.class_embedding(labels)
