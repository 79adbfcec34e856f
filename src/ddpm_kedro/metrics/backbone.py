"""The small convolutional network that the evaluation's own feature extractors share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.errors import UserError

FEATURES = 64
SMALLEST = 8  # pixels per side, which are halved three times
LARGEST = 64  # pixels per side that the convolutions see; larger images are reduced


class Backbone(nn.Module):
    """Three blocks of convolutions and a layer of features; independent of the U-Net."""

    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_block(channels, 16), *_block(16, 32), *_block(32, 64), nn.AdaptiveAvgPool2d(3), nn.Flatten()
        )
        self.features = nn.Sequential(nn.Linear(64 * 3 * 3, FEATURES), nn.ReLU())
        self.register_buffer("scale", torch.ones(()))

    def encode(self, images: Tensor) -> Tensor:
        """Compute features (N, 64), without the scale, of images (N, C, H, W) in [-1, 1]."""
        features: Tensor = self.features(self.convolutions(reduce_images(images)))
        return features


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in which the convolutions see images: at most 64 pixels per side, and at least 8."""
    factor = min(1.0, LARGEST / max(height, width))
    return max(min(height, SMALLEST), round(height * factor)), max(min(width, SMALLEST), round(width * factor))


def reduce_images(images: Tensor) -> Tensor:
    """Reduce images (N, C, H, W) to the size that the convolutions see, with antialiasing; smaller ones are kept."""
    size = reduced_size(*images.shape[-2:])
    if size == tuple(images.shape[-2:]):
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def check_size(height: int, width: int) -> None:
    """Raise UserError for images that are too small for the convolutions."""
    if min(height, width) < SMALLEST:
        raise UserError(
            f"The feature extractor needs images of at least {SMALLEST} pixels per side, but these are {height} high "
            f"and {width} wide. Use evaluation.extractor=inception or larger images (images.size)."
        )


def _block(channels_in: int, channels: int) -> list[nn.Module]:
    convolutions = [
        layer
        for channels_before in (channels_in, channels)
        for layer in (nn.Conv2d(channels_before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
    ]
    return [*convolutions, nn.MaxPool2d(2), nn.Dropout(0.2)]
