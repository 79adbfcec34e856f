"""Judge samples: figures, nearest training images, and where the model errs."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpm_kedro.diffusion import TARGETS, diffusion_loss, generator_for, make_schedule
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.classifier import LEAST_CLASSES, fit_classifier
from ddpm_kedro.metrics.extractor import (
    NO_EXTRACTOR,
    FeatureExtractor,
    Inception,
    LazyFeatureExtractor,
    inception_weights,
)
from ddpm_kedro.metrics.neighbours import Nearest, copying, nearest_images
from ddpm_kedro.metrics.scores import Features, Figure, all_scores
from ddpm_kedro.metrics.table import WITHOUT_CLASSES, Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.reporting.grid import labelled_pairs
from ddpm_kedro.sampling.samples import Samples

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")
LOSS_IMAGES = 100  # of the hold-out, at most, for each timestep


def fit_feature_extractor(training_images: ImageStore, evaluation: EvaluationParameters) -> LazyFeatureExtractor:
    """What samples and images are compared by, fitted when it is saved and not there yet.

    Returns:
        A classifier of the training images' labels, or Inception-v3, which was trained elsewhere; for images without
        classes none in place of the classifier.
    """
    name: str = evaluation.extractor
    if name == "classifier" and len(training_images.class_names) < LEAST_CLASSES:
        logger.warning(WITHOUT_CLASSES)
        name = NO_EXTRACTOR
    inputs = {"training_images": training_images.made_by.fingerprint}
    made_by = Provenance({"evaluation": evaluation.fitting()}, inputs)

    def read() -> FeatureExtractor:
        if name == NO_EXTRACTOR:
            return FeatureExtractor(name, torch.nn.Identity(), training_images.image_shape, (), made_by)
        if name == "inception":
            network: torch.nn.Module = Inception(inception_weights(evaluation.inception_weights))
            return FeatureExtractor(name, network, training_images.image_shape, (), made_by)
        network = fit_classifier(training_images, evaluation)
        return FeatureExtractor(name, network, training_images.image_shape, training_images.class_names, made_by)

    return LazyFeatureExtractor(made_by, read)


def evaluate_samples(
    samples: Samples,
    sampling_report: dict[str, Any],
    training_images: ImageStore,
    holdout_images: ImageStore,
    feature_extractor: FeatureExtractor,
    evaluation: EvaluationParameters,
) -> tuple[Metrics, Image.Image]:
    """All figures of the samples, each beside that of the hold-out, and the samples most like a training image.

    Without a feature extractor there are no figures.

    Raises:
        UserError: for samples of another shape than the images.
    """
    if samples.images.shape[1:] != training_images.images.shape[1:]:
        raise UserError(
            f"The samples are {samples.images.shape[1:]}, but the training images {training_images.images.shape[1:]} "
            "(height, width, channels): these are other images than the model was trained with."
        )
    spread = np.linspace(0, len(training_images) - 1, min(len(training_images), evaluation.reference_images))
    reference = training_images.images[spread.astype(int)]
    figures = list[Figure]()
    if feature_extractor.name != NO_EXTRACTOR:
        labels = _meant(samples.labels, samples.class_names, feature_extractor.class_names)
        figures = all_scores(
            Features(*feature_extractor(samples.images), labels),
            Features(*feature_extractor(reference)),
            Features(*feature_extractor(holdout_images.images), _tensor(holdout_images.labels)),
            feature_extractor.name,
            evaluation.kid_subsets,
        )
    nearest = nearest_images(samples.images, reference)
    inputs = {
        "samples": samples.made_by,
        "training_images": training_images.made_by,
        "holdout_images": holdout_images.made_by,
        "feature_extractor": feature_extractor.made_by,
    }
    metrics = Metrics(
        figures=[figure.as_dict() for figure in figures],
        copying=copying(nearest, nearest_images(holdout_images.images, reference), len(reference)),
        samples=sampling_report,
        extractor=feature_extractor.name,
        reference_images=len(reference),
        made_by=Provenance(
            {"evaluation": evaluation.fingerprint_fields()},
            {name: made_by.fingerprint for name, made_by in inputs.items()},
        ),
    )
    return metrics, _beside_nearest(samples.images, reference, nearest, evaluation.shown)


@torch.no_grad()
def measure_loss_by_timestep(
    model: TrainedModel, holdout_images: ImageStore, evaluation: EvaluationParameters
) -> list[dict[str, float]]:
    """Mean loss of the exported model on hold-out images, at evenly spread timesteps, always with the same noise."""
    schedule, target = make_schedule(model.diffusion).to(CPU), TARGETS[model.diffusion.target]
    count = min(LOSS_IMAGES, len(holdout_images))
    chosen = torch.arange(count) * len(holdout_images) // count
    x0 = to_float(read_pixels(holdout_images, chosen))
    labels = _tensor(holdout_images.labels)
    labels = labels[chosen] if labels is not None and model.class_names else None
    noise = torch.randn(x0.shape, generator=generator_for(evaluation.seed))
    rows = []
    for point in range(evaluation.timestep_bins):
        timestep = int((point + 0.5) * len(schedule) / evaluation.timestep_bins)
        timesteps = torch.full((count,), timestep)
        loss = diffusion_loss(model.network, schedule, target, x0, timesteps, noise, labels).mean().item()
        rows.append({"timestep": timestep, "validation_loss": loss})
    return rows


def _meant(labels: NDArray[Any] | None, names: tuple[str, ...], classes: tuple[str, ...]) -> torch.Tensor | None:
    """Labels of samples, where they are those that the classifier knows."""
    return _tensor(labels) if names == classes else None


def _tensor(labels: NDArray[Any] | None) -> torch.Tensor | None:
    return None if labels is None else torch.from_numpy(np.ascontiguousarray(labels))


def _beside_nearest(images: NDArray[Any], reference: NDArray[Any], nearest: Nearest, shown: int) -> Image.Image:
    """The samples that are most like one training image, each above that image."""
    order = nearest.ratios.argsort()[:shown]
    texts = [f"{distance:.0f}" for distance in nearest.distances[order].tolist()]
    pairs = images[order.numpy()], reference[nearest.indices[order].numpy()]
    return labelled_pairs(*pairs, ("sample", "nearest", "distance"), texts)
