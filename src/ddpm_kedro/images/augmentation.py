"""Augment training images, in one batched function of tensors."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_kedro.images import non_leaking
from ddpm_kedro.images.non_leaking import Transformations, take
from ddpm_kedro.images.pixels import read_pixels, to_device, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import AugmentationParameters

OWN = 4  # random numbers per image of ``augment``
NUMBERS = OWN + non_leaking.NUMBERS  # random numbers per image


def augment(images: Tensor, parameters: AugmentationParameters, numbers: Tensor) -> Tensor:
    """Flip and crop each image of a batch (N, C, H, W) independently, unlike torchvision's transforms.

    Each kind of change has its own row of ``numbers`` (OWN, N), uniform in [0, 1), so that it does not depend on which
    other changes are on.
    """
    height, width = images.shape[-2:]
    horizontal, vertical, down, right = to_device(numbers, images.device)
    if parameters.horizontal_flip:
        images = torch.where((horizontal < 0.5)[:, None, None, None], images.flip(-1), images)
    if parameters.vertical_flip:
        images = torch.where((vertical < 0.5)[:, None, None, None], images.flip(-2), images)
    if pad := parameters.crop_padding:
        padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")
        rows = _offsets(down, pad, height)  # (N, H)
        columns = _offsets(right, pad, width)  # (N, W)
        images = take(padded, rows, columns)
    return images


def _offsets(uniform: Tensor, pad: int, size: int) -> Tensor:
    first = (uniform * (2 * pad + 1)).long()
    return first[:, None] + torch.arange(size, device=uniform.device)


@dataclass(frozen=True)
class AugmentedImages:
    """Training images that are augmented when a batch is requested."""

    store: ImageStore
    parameters: AugmentationParameters

    def __len__(self) -> int:
        return len(self.store)

    def batch(self, indices: Tensor, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Return augmented images (N, C, H, W) float32 in [-1, 1] on ``device``, for indices (N,) int64.

        ``generator`` is on the CPU; equal generators give equal images.
        """
        numbers = torch.rand(NUMBERS, len(indices), generator=generator)
        return self.from_pixels(read_pixels(self.store, indices), numbers, device)[0]

    def from_pixels(
        self, pixels: Tensor, numbers: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor | None]:
        """Augment images (N, H, W, C) uint8 with random numbers (NUMBERS, N), uniform in [0, 1), on the CPU.

        Return what :meth:`batch` returns, and the labels of the non-leaking augmentation on ``device``,
        (N, :data:`~ddpm_kedro.images.non_leaking.LABELS`) float32: 0 where nothing was done; None if it is off.
        """
        images = augment(to_float(pixels, device), self.parameters, numbers[:OWN])
        if not self.parameters.non_leaking:
            return images, None
        height, width = images.shape[-2:]
        transform = Transformations.sample(numbers[OWN:], self.parameters.non_leaking, (height, width))
        return transform(images), to_device(transform.labels, images.device)

    def labels(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor | None:
        """Return the labels of images, (N,) int64; None for images without classes."""
        if self.store.labels is None:
            return None
        return to_device(torch.from_numpy(self.store.labels[indices.numpy()]), device)
