"""Non-leaking augmentation: random geometric transformations, and labels of what was done.

Karras et al. (2022, appendix F) train the network with the labels and generate with labels of zeros, so that samples
show none of the transformations (as in ADA, Karras et al. 2020, for GANs). Transformations and their strengths come
from EDM's code, and translations by whole pixels from ADA.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_kedro.images.pixels import to_device

KINDS = 7  # x-flip, y-flip, shift by whole pixels, scaling, rotation, anisotropic scaling, translation
NUMBERS = KINDS + 11  # random numbers per image
LABELS = 11
"""Labels per image: one of each flip and of scaling, two of each other kind; 0 where nothing was done."""
SCALE_STD = 0.2  # of the binary logarithm of the scale, isotropic and anisotropic
TRANSLATION = 0.125  # of the image's side: largest shift by whole pixels, standard deviation of a translation


@dataclass(frozen=True)
class Transformations:
    """The transformation of each image of a batch, on the CPU.

    Attributes:
        flips: whether to flip left to right, and top to bottom, (2, N) bool.
        shifts: whole pixels to the right and down, (2, N) int64.
        matrices: affine map of output places to input places, (N, 2, 3). Places are (x, y); the image is [-1, 1]².
        labels: the labels for the network, (N, LABELS).
    """

    flips: Tensor
    shifts: Tensor
    matrices: Tensor
    labels: Tensor

    @classmethod
    def sample(cls, numbers: Tensor, probability: float, size: tuple[int, int]) -> Self:
        """Sample each kind independently with this probability, for images of ``size`` (H, W).

        ``numbers`` (NUMBERS, N) are uniform in [0, 1), on the CPU.
        """
        applied = numbers[:KINDS] < probability
        values = numbers[KINDS:]
        normal = torch.special.ndtri(values.clamp(min=2**-24))  # standard normal
        sides = torch.tensor([size[1], size[0]])[:, None]  # (2, 1)
        flips = applied[:2] & (values[:2] < 0.5)
        shifts = ((2 * values[2:4] - 1) * TRANSLATION * sides).round() * applied[2]
        scale, angle = normal[4] * applied[3], _angle(values[5]) * applied[4]
        stretch, axis = normal[6] * applied[5], _angle(values[7]) * (applied[5] & (values[8] < 0.5))
        translation = normal[9:11] * applied[6]  # (2, N)

        sizes = torch.exp2(SCALE_STD * scale)[:, None, None]
        linear = _rotation(-angle) / sizes @ _rotation(axis) @ _stretch(-SCALE_STD * stretch) @ _rotation(-axis)
        linear = linear * sides.T / sides  # from pixels to [-1, 1]²
        offset = -linear @ (translation * 2 * TRANSLATION).T[:, :, None]
        labels = [
            *flips,
            *shifts / (TRANSLATION * sides),
            scale,
            angle.cos() - 1,
            angle.sin(),
            stretch * axis.cos(),
            stretch * axis.sin(),
            *translation,
        ]
        return cls(flips, shifts.long(), torch.cat([linear, offset], dim=2), torch.stack(labels, dim=1))

    def __call__(self, images: Tensor) -> Tensor:
        """Transform images (N, C, H, W); beyond their edges they are reflected. Flips and shifts are exact."""
        height, width = images.shape[-2:]
        flips, shifts, matrices = (to_device(each, images.device) for each in (self.flips, self.shifts, self.matrices))
        columns = _sources(width, flips[0], shifts[0])
        images = take(images, _sources(height, flips[1], shifts[1]), columns)
        identity = torch.eye(2, 3, device=images.device)
        resampled = (matrices != identity).flatten(1).any(1)
        return torch.where(resampled[:, None, None, None], warp(images, matrices), images)


def take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Select rows (N, H') and columns (N, W') of each image (N, C, H, W) by their indices; (N, C, H', W')."""
    image = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample images (N, C, H, W) by affine maps (N, 2, 3), with bicubic interpolation; see :class:`Transformations`.

    Values stay in [-1, 1].
    """
    if images.device.type == "mps":  # it has no bicubic grid_sample
        return warp(images.cpu(), matrices.cpu()).to(images.device)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False).clamp(-1, 1)


def _sources(size: int, flip: Tensor, shift: Tensor) -> Tensor:
    """Return the source index of each row or column of each image, (N, size)."""
    index = (torch.arange(size, device=flip.device) - shift[:, None]) % (2 * size)
    index = torch.where(index < size, index, 2 * size - 1 - index)  # reflected
    return torch.where(flip[:, None], size - 1 - index, index)


def _angle(uniform: Tensor) -> Tensor:
    return (2 * uniform - 1) * math.pi


def _rotation(angle: Tensor) -> Tensor:
    """Return rotations by angles (N,), (N, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)


def _stretch(log_scale: Tensor) -> Tensor:
    """Return maps that scale x by 2^s and y by 2^-s, (N, 2, 2), for s (N,)."""
    return torch.diag_embed(torch.exp2(torch.stack([log_scale, -log_scale], dim=1)))
