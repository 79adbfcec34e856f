"""The parts of the U-Net. Modules are named as in diffusers, so that weights can be exchanged by name."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.parameters import ModelParameters

EXPLICIT_TOKENS = 1024  # with more, the attention weights need too much memory


def zero_init(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Set weight and bias to zero, so that a residual block that ends in this layer starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def timestep_embedding(timesteps: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Embed timesteps (N,) in sinusoids (Vaswani et al. 2017), sines first, as in Ho et al. (2020).

    ``width`` is even. (N, width) float32.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / (half - 1)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * exponent)  # (N, half)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q kᵀ / √D) v (Vaswani et al. 2017, eq. 1), all of shape (N, heads, L, D)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= EXPLICIT_TOKENS:
        # On a CPU, the fused kernel does not use the bfloat16 instructions; matrix products do.
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return weights.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that keeps the precision of its input under autocast; its sums are in float32 anyway.

    On a GPU, autocast would compute it and everything up to the next convolution in float32: twice the memory traffic.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) → the same."""
        if x.device.type != "cuda":  # other devices keep the precision of the input
            return super().forward(x)
        with torch.autocast("cuda", enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class TimestepMLP(nn.Module):
    """Two linear layers from the sinusoids to the embedding that every residual block receives."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, embedding_width)
        self.linear_2 = nn.Linear(embedding_width, embedding_width)

    def forward(self, sinusoid: Tensor) -> Tensor:
        """(N, width) → (N, embedding_width)."""
        return self.linear_2(F.silu(self.linear_1(sinusoid)))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU and a 3×3 convolution, twice; the embedding is added between the two."""

    def __init__(self, channels_in: int, channels_out: int, embedding_width: int, p: ModelParameters) -> None:
        super().__init__()
        self.norm1 = GroupNorm(p.norm_groups, channels_in, eps=p.norm_eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_width, channels_out)
        self.norm2 = GroupNorm(p.norm_groups, channels_out, eps=p.norm_eps)
        self.dropout = nn.Dropout(p.dropout)
        self.conv2 = zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (N, C_in, H, W) and an activated embedding (N, E) to (N, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))  # (N, C_out, H, W)
        h = h + self.time_emb_proj(embedding)[:, :, None, None]  # one value per channel
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.conv_shortcut(x) + h


class SelfAttention(nn.Module):
    """Self-attention over all pixels of a feature map (Ho et al. 2020, Appendix B), as a residual."""

    def __init__(self, channels: int, p: ModelParameters) -> None:
        super().__init__()
        self.heads = channels // (p.head_channels or channels)
        self.group_norm = GroupNorm(p.norm_groups, channels, eps=p.norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([zero_init(nn.Linear(channels, channels))])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        n, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (N, HW, C)
        q, k, v = (
            to(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, HW, C / heads)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        mixed = attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return x + self.to_out[0](mixed).transpose(1, 2).reshape(n, c, h, w)


class Downsample(nn.Module):
    """Halve height and width with a strided convolution, padded right and bottom as in Ho et al.'s code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width by repetition, followed by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
