"""Pixels of a store to tensors that a network takes, and back."""

import torch
from torch import Tensor

from ddpm_kedro.images.store import ImageStore


def read_pixels(store: ImageStore, indices: Tensor) -> Tensor:
    """Pictures of a store as they lie there, (N, H, W, C) uint8."""
    return torch.from_numpy(store.images[indices.numpy()])


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """From the CPU to a device, without waiting until that has done what it was asked before."""
    cuda = torch.device(device).type == "cuda"  # elsewhere a copy may come after its source is gone
    return tensor.to(device, non_blocking=cuda)


def to_float(pixels: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """From (N, H, W, C) uint8 to (N, C, H, W) float32 in [-1, 1]."""
    return moved(pixels, device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """From (N, C, H, W) in [-1, 1] to (N, H, W, C) uint8, rounded: the inverse of :func:`to_float`."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
