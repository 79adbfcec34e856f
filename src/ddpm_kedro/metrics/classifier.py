"""The evaluation classifier: learns the labels of the training images and gives features without a download."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm_kedro.diffusion import seed_global_state
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.progress import progress

FEATURES = 64
LEAST_CLASSES = 2
SMALLEST = 8  # pixels per side, which are halved three times
PEAK_LR = 3e-3
SCALE_IMAGES = 1000  # training images that the scale of the features is computed from
WARP = 0.1  # standard deviation of stretching, shearing and shifting, as a fraction of the image's size


class Classifier(nn.Module):
    """Three blocks of convolutions, a layer of features and one logit per class; independent of the U-Net."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_block(channels, 16), *_block(16, 32), *_block(32, 64), nn.AdaptiveAvgPool2d(3), nn.Flatten()
        )
        self.features = nn.Sequential(nn.Linear(64 * 3 * 3, FEATURES), nn.ReLU())
        self.logits = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, num_classes))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (N, 64) and logits (N, classes) of images (N, C, H, W) in [-1, 1].

        The features are scaled to a mean square of 1 for the training images.
        """
        features = self.features(self.convolutions(images))
        return features / self.scale, self.logits(features)


def fit_classifier(store: ImageStore, parameters: EvaluationParameters) -> Classifier:
    """Train a classifier on randomly shifted, stretched and sheared training images.

    The result is the same for the same images and parameters.

    Raises:
        UserError: if the images have no labels or are too small.
    """
    if store.labels is None or len(store.class_names) < LEAST_CLASSES:
        raise UserError(
            "evaluation.extractor = classifier learns the classes of the images, but these images have none. "
            "Use evaluation.extractor=inception."
        )
    _, height, width = store.image_shape
    if min(height, width) < SMALLEST:
        raise UserError(
            f"evaluation.extractor = classifier needs images of at least {SMALLEST} pixels per side, but these "
            f"are {height} high and {width} wide. Use evaluation.extractor=inception or larger images (images.size)."
        )
    with seed_global_state(parameters.seed):
        network = Classifier(store.image_shape[0], len(store.class_names))
        labels = torch.from_numpy(store.labels)
        steps = -(-parameters.fit_images // parameters.fit_batch_size)
        optimizer = torch.optim.AdamW(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, steps)
        order = torch.cat([torch.randperm(len(store)) for _ in range(-(-parameters.fit_images // len(store)))])
        with progress("fitting the classifier", steps, "steps") as advance:
            for batch in order.split(parameters.fit_batch_size)[:steps]:
                indices = batch.sort().values
                _, logits = network(_warp(to_float(read_pixels(store, indices))))
                optimizer.zero_grad()
                F.cross_entropy(logits, labels[indices]).backward()
                optimizer.step()
                schedule.step()
                advance(1)
    network.eval().requires_grad_(False)
    spread = torch.linspace(0, len(store) - 1, min(len(store), SCALE_IMAGES)).long()
    network.scale = network(to_float(read_pixels(store, spread)))[0].square().mean().sqrt()
    return network


def _block(channels_in: int, channels: int) -> list[nn.Module]:
    convolutions = [
        layer
        for channels_before in (channels_in, channels)
        for layer in (nn.Conv2d(channels_before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
    ]
    return [*convolutions, nn.MaxPool2d(2), nn.Dropout(0.2)]


def _warp(images: Tensor) -> Tensor:
    """Stretch, shear and shift each image by random amounts."""
    warp = torch.eye(2, 3) + WARP * torch.randn(len(images), 2, 3)
    grid = F.affine_grid(warp, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
