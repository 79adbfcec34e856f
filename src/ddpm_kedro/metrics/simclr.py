"""Features of images without classes, by SimCLR: the network learns which two views show the same image.

Chen et al. (2020), "A Simple Framework for Contrastive Learning of Visual Representations".
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.backbone import FEATURES, Backbone, check_size
from ddpm_kedro.metrics.fitting import NOT_SAVED, SavedState, fit
from ddpm_kedro.parameters import EvaluationParameters

TEMPERATURE = 0.2
PROJECTION = 64
SMALLEST_AREA = 0.25  # of a crop, as a fraction of the image
LARGEST_ANGLE = math.pi / 12


class SimCLR(Backbone):
    """A backbone with a projection head, whose output only the loss uses."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.projection = nn.Sequential(
            nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, PROJECTION, bias=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (N, 64) and projections (N, 64) of images (N, C, H, W) in [-1, 1].

        The features are scaled to a mean square of 1 for the training images.
        """
        features = self.encode(images)
        return features / self.scale, self.projection(features)


def fit_simclr(store: ImageStore, parameters: EvaluationParameters, saved: SavedState = NOT_SAVED) -> SimCLR:
    """Train a network to find, among the views in a batch, the other view of the same image.

    ``fit_images`` counts views, so that a fit takes as long as the classifier's. Few images give smaller batches.

    Raises:
        UserError: if the images are too small.
    """
    check_size(*store.image_shape[1:])
    steps = -(-parameters.fit_images // (2 * parameters.fit_batch_size))
    batch_size = min(parameters.fit_batch_size, len(store))

    def loss(network: SimCLR, images: Tensor, _: Tensor) -> Tensor:
        return nt_xent(network(random_views(torch.cat([images, images])))[1])

    return fit(lambda: SimCLR(store.image_shape[0]), loss, store, steps * batch_size, batch_size, parameters, saved)


def nt_xent(projections: Tensor) -> Tensor:
    """Return the normalized temperature-scaled cross entropy (Chen et al. 2020, eq. 1).

    Args:
        projections: (2N, D); rows i and N + i are two views of image i.
    """
    z = F.normalize(projections)
    similarity = z @ z.T / TEMPERATURE
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    other_view = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), other_view)


def random_views(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Crop, turn and flip each image of a batch (N, C, H, W), and change its brightness, contrast and colours.

    Such changes leave the content of photographs, cells and textures as it is. The random numbers are computed on the
    CPU, so that they are the same on every device.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(len(images), *shape, generator=generator)).to(images.device)

    side, angle = uniform(SMALLEST_AREA, 1).sqrt(), uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    flip, shift = uniform(-1, 1).sign(), uniform(-1, 1, 2) * (1 - side)[:, None]
    cos, sin = side * angle.cos(), side * angle.sin()
    rows = torch.stack([cos * flip, -sin, shift[:, 0]], 1), torch.stack([sin * flip, cos, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    saturation, contrast = uniform(0.4, 1.6, 1, 1, 1), uniform(0.6, 1.4, 1, 1, 1)
    brightness, tint = uniform(-0.3, 0.3, 1, 1, 1), uniform(-0.1, 0.1, images.shape[1], 1, 1)
    grey = views.mean(1, keepdim=True)
    return ((grey + saturation * (views - grey)) * contrast + brightness + tint).clamp(-1, 1)
