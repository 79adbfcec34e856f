"""Convert the pixels of a store to tensors for a network, and back."""

import torch
from torch import Tensor

from ddpm_kedro.images.store import ImageStore


def read_pixels(store: ImageStore, indices: Tensor) -> Tensor:
    """Read images of a store without conversion, (N, H, W, C) uint8."""
    return torch.from_numpy(store.images[indices.numpy()])


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor from the CPU to a device, without waiting for earlier work on the device."""
    cuda = torch.device(device).type == "cuda"  # other devices may copy after the source is freed
    return tensor.to(device, non_blocking=cuda)


def to_float(pixels: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Convert (N, H, W, C) uint8 to (N, C, H, W) float32 in [-1, 1]."""
    return to_device(pixels, device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert (N, C, H, W) in [-1, 1] to (N, H, W, C) uint8, rounded: the inverse of :func:`to_float`."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
