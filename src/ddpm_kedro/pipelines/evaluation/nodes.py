"""Evaluate samples by metrics and nearest training images, and the model by its loss at each noise level."""

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
from ddpm_kedro.metrics.scores import Features, Score, all_scores
from ddpm_kedro.metrics.table import WITHOUT_CLASSES, Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.reporting.grid import titled_rows
from ddpm_kedro.sampling.samples import Samples

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")
LOSS_IMAGES = 100  # holdout images per timestep, at most


def fit_feature_extractor(training_images: ImageStore, evaluation: EvaluationParameters) -> LazyFeatureExtractor:
    """Plan the feature extractor; it is fitted when it is saved, unless the same one is saved already.

    Returns:
        A classifier of the training images' labels, or Inception-v3 with published weights. If a classifier is
        requested but the images have no classes, no extractor.
    """
    name: str = evaluation.extractor
    if name == "classifier" and len(training_images.class_names) < LEAST_CLASSES:
        logger.warning(WITHOUT_CLASSES)
        name = NO_EXTRACTOR
    inputs = {"training_images": training_images.made_by.fingerprint}
    made_by = Provenance({"evaluation": evaluation.fitting()}, inputs)

    def read() -> FeatureExtractor:
        class_names: tuple[str, ...] = ()
        if name == NO_EXTRACTOR:
            network: torch.nn.Module = torch.nn.Identity()
        elif name == "inception":
            network = Inception(inception_weights(evaluation.inception_weights))
        else:
            network, class_names = fit_classifier(training_images, evaluation), training_images.class_names
        return FeatureExtractor(name, network, training_images.image_shape, class_names, made_by)

    return LazyFeatureExtractor(made_by, read)


def evaluate_samples(
    samples: Samples,
    sampling_report: dict[str, Any],
    training_images: ImageStore,
    holdout_images: ImageStore,
    feature_extractor: FeatureExtractor,
    evaluation: EvaluationParameters,
) -> tuple[Metrics, Image.Image]:
    """Compute all metrics of the samples, and show the samples that are most similar to a training image.

    Without a feature extractor there are no scores.

    Raises:
        UserError: if the samples have another shape than the images.
    """
    if samples.images.shape[1:] != training_images.images.shape[1:]:
        raise UserError(
            f"The samples are {samples.images.shape[1:]}, but the training images {training_images.images.shape[1:]} "
            "(height, width, channels): the model was trained with other images."
        )
    spread = np.linspace(0, len(training_images) - 1, min(len(training_images), evaluation.reference_images))
    reference = training_images.images[spread.astype(int)]
    nearest = nearest_images(samples.images, reference)
    inputs = {
        "samples": samples.made_by.fingerprint,
        "training_images": training_images.made_by.fingerprint,
        "holdout_images": holdout_images.made_by.fingerprint,
        "feature_extractor": feature_extractor.made_by.fingerprint,
    }
    metrics = Metrics(
        scores=_scores(samples, reference, holdout_images, feature_extractor, evaluation.kid_subsets),
        copying=copying(nearest, nearest_images(holdout_images.images, reference), len(reference)),
        samples=sampling_report,
        extractor=feature_extractor.name,
        reference_images=len(reference),
        made_by=Provenance({"evaluation": evaluation.fingerprint_fields()}, inputs),
    )
    return metrics, _beside_nearest(samples.images, reference, nearest, evaluation.shown)


@torch.no_grad()
def measure_loss_by_timestep(
    model: TrainedModel, holdout_images: ImageStore, evaluation: EvaluationParameters
) -> list[dict[str, float]]:
    """Compute the model's mean loss on holdout images at evenly spaced timesteps, always with the same noise."""
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


def _scores(
    samples: Samples, reference: NDArray[Any], holdout: ImageStore, extractor: FeatureExtractor, kid_subsets: int
) -> list[Score]:
    if extractor.name == NO_EXTRACTOR:
        return []
    known = samples.class_names == extractor.class_names  # else the labels mean other classes than the logits
    return all_scores(
        Features(*extractor(samples.images), _tensor(samples.labels) if known else None),
        Features(*extractor(reference)),
        Features(*extractor(holdout.images), _tensor(holdout.labels)),
        extractor.name,
        kid_subsets,
    )


def _tensor(labels: NDArray[Any] | None) -> torch.Tensor | None:
    return None if labels is None else torch.from_numpy(np.ascontiguousarray(labels))


def _beside_nearest(images: NDArray[Any], reference: NDArray[Any], nearest: Nearest, shown: int) -> Image.Image:
    """Show the samples that are most similar to one training image, each above that image."""
    order = nearest.ratios.argsort()[:shown]
    rows = images[order.numpy()], reference[nearest.indices[order].numpy()]
    distances = [f"{distance:.0f}" for distance in nearest.distances[order].tolist()]
    return titled_rows(rows, ("sample", "nearest"), ("distance", *distances))
