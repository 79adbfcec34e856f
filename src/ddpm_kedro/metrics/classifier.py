"""The evaluation classifier: learns the labels of the training images and gives features without a download."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.backbone import FEATURES, Backbone, check_size
from ddpm_kedro.metrics.fitting import NOT_SAVED, SavedState, fit
from ddpm_kedro.parameters import EvaluationParameters

LEAST_CLASSES = 2
WARP = 0.1  # standard deviation of stretching, shearing and shifting, as a fraction of the image's size


class Classifier(Backbone):
    """A backbone with one logit per class."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels)
        self.logits = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, num_classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (N, 64) and logits (N, classes) of images (N, C, H, W) in [-1, 1].

        The features are scaled to a mean square of 1 for the training images.
        """
        features = self.encode(images)
        return features / self.scale, self.logits(features)


def fit_classifier(store: ImageStore, parameters: EvaluationParameters, saved: SavedState = NOT_SAVED) -> Classifier:
    """Train a classifier on randomly shifted, stretched and sheared training images.

    The result is the same for the same images and parameters on the same device.

    Raises:
        UserError: if the images have no labels or are too small.
    """
    if store.labels is None or len(store.class_names) < LEAST_CLASSES:
        raise UserError(
            "evaluation.extractor = classifier learns the classes of the images, but these images have none. "
            "Use evaluation.extractor=simclr or inception."
        )
    check_size(*store.image_shape[1:])
    labels = torch.from_numpy(store.labels)

    def loss(network: Classifier, images: Tensor, indices: Tensor) -> Tensor:
        _, logits = network(_warp(images))
        return F.cross_entropy(logits, labels[indices].to(images.device))

    def make() -> Classifier:
        return Classifier(store.image_shape[0], len(store.class_names))

    return fit(make, loss, store, parameters.fit_images, parameters.fit_batch_size, parameters, saved)


def _warp(images: Tensor) -> Tensor:
    """Stretch, shear and shift each image by random amounts, which are the same on every device."""
    warp = (torch.eye(2, 3) + WARP * torch.randn(len(images), 2, 3)).to(images.device)
    grid = F.affine_grid(warp, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
