"""Choose the feature extractor for a set of images."""

import logging

from torch import nn

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.backbone import SMALLEST, reduced_size
from ddpm_kedro.metrics.classifier import LEAST_CLASSES, fit_classifier
from ddpm_kedro.metrics.extractor import (
    NO_EXTRACTOR,
    FeatureExtractor,
    Inception,
    LazyFeatureExtractor,
    inception_weights,
)
from ddpm_kedro.metrics.fitting import NOT_SAVED, SavedState
from ddpm_kedro.metrics.simclr import fit_simclr
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
LEAST_IMAGES = 2


def plan_extractor(training_images: ImageStore, evaluation: EvaluationParameters) -> LazyFeatureExtractor:
    """Plan the extractor that the parameters name; it is fitted when it is read.

    For images with fewer than two classes, SimCLR takes the place of the classifier. Images that are too few or too
    small for both get no extractor.
    """
    shape = training_images.image_shape
    name: str = evaluation.extractor
    if name == "classifier" and len(training_images.class_names) < LEAST_CLASSES:
        name = "simclr"
        logger.info("These images have no classes: SimCLR fits the feature extractor, without labels.")
    if name != "inception" and unsupported_reason(len(training_images), shape[1:]):
        name = NO_EXTRACTOR
    fitting = evaluation.fitting() | {"extractor": name}
    if name != "inception" and (size := reduced_size(*shape[1:])) != shape[1:]:
        fitting["reduced_to"] = list(size)
    made_by = Provenance({"evaluation": fitting}, {"training_images": training_images.made_by.fingerprint})

    def read(saved: SavedState = NOT_SAVED) -> FeatureExtractor:
        class_names: tuple[str, ...] = ()
        network: nn.Module
        match name:
            case "classifier":
                network, class_names = fit_classifier(training_images, evaluation, saved), training_images.class_names
            case "simclr":
                network = fit_simclr(training_images, evaluation, saved)
            case "inception":
                network = Inception(inception_weights(evaluation.inception_weights))
            case _:
                network = nn.Identity()
        return FeatureExtractor(name, network, shape, class_names, made_by)

    return LazyFeatureExtractor(made_by, read, evaluation.refit)


def unsupported_reason(number: int, size: tuple[int, int]) -> str | None:
    """Return why no extractor can be fitted to a number of images of a size (H, W); None if one can."""
    if number < LEAST_IMAGES:
        return f"a feature extractor needs at least {LEAST_IMAGES} training images, not {number}"
    if min(size) < SMALLEST:
        return (
            f"a feature extractor needs images of at least {SMALLEST} pixels per side, but these are {size[0]} high "
            f"and {size[1]} wide; use larger images (images.size) or evaluation.extractor=inception"
        )
    return None
