"""Evaluate samples by metrics and nearest training images, and the model by its loss at each noise level."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpm_kedro.diffusion import TARGETS, diffusion_loss, generator_for, make_schedule
from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.pixels import read_pixels, to_float
from ddpm_kedro.images.store import ImageStore, ImageSubset
from ddpm_kedro.metrics.choice import plan_extractor
from ddpm_kedro.metrics.comparison import compare_images, tensor
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.metrics.fitting import batch_size_for
from ddpm_kedro.metrics.neighbours import Nearest, copying, nearest_images
from ddpm_kedro.metrics.table import Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.reporting.grid import titled_rows
from ddpm_kedro.sampling.samples import Samples

LOSS_IMAGES = 100  # holdout images per timestep, at most


def fit_feature_extractor(
    training_images: ImageStore, evaluation: EvaluationParameters, _sampling_report: dict[str, Any] | None = None
) -> LazyFeatureExtractor:
    """Plan the feature extractor; it is fitted when it is saved, unless one is kept for these images.

    The report of the sampling has no effect on the extractor: with it as input, Kedro fits the extractor after the
    training.
    """
    return plan_extractor(training_images, evaluation)


def evaluate_samples(
    samples: Samples,
    sampling_report: dict[str, Any],
    training_images: ImageStore,
    holdout_images: ImageStore,
    feature_extractor: FeatureExtractor,
    evaluation: EvaluationParameters,
) -> tuple[Metrics, Image.Image]:
    """Compute all metrics of the samples, and show the samples that are most similar to a training image.

    Features and nearest images are computed on ``evaluation.device``.

    Raises:
        UserError: if the samples have another shape than the images.
    """
    _check_shape(samples, training_images)
    device = choose_hardware(evaluation.device, "fp32").device
    feature_extractor.network.to(device)
    spread = np.linspace(0, len(training_images) - 1, min(len(training_images), evaluation.reference_images))
    reference = ImageSubset(training_images.images, spread.astype(int))
    known = samples.class_names == feature_extractor.class_names  # else the labels mean other classes than the logits
    labels = tensor(samples.labels) if known else None
    found = compare_images(samples.images, labels, reference, holdout_images, feature_extractor, evaluation)
    nearest, nearest_holdout = (
        nearest_images(images, reference, device) for images in (samples.images, holdout_images.images)
    )
    metrics = Metrics(
        scores=found.scores,
        copying=copying(nearest, nearest_holdout, len(reference), found.verdict.is_far),
        samples=sampling_report,
        extractor=feature_extractor.name,
        reference_images=len(reference),
        made_by=_provenance(evaluation, samples, training_images, holdout_images, feature_extractor),
        reliability=found.reliability,
        verdict=found.verdict.text,
        warnings=found.warnings,
    )
    return metrics, _beside_nearest(samples.images, reference, nearest, evaluation.shown)


@torch.no_grad()
def measure_loss_by_timestep(
    model: TrainedModel, holdout_images: ImageStore, evaluation: EvaluationParameters
) -> list[dict[str, float]]:
    """Compute the model's mean loss on holdout images at evenly spaced timesteps, always with the same noise."""
    device = choose_hardware(evaluation.device, "fp32").device
    network, target = model.network.to(device), TARGETS[model.diffusion.target]
    schedule = make_schedule(model.diffusion).to(device)
    count = min(LOSS_IMAGES, len(holdout_images))
    chosen = torch.arange(count) * len(holdout_images) // count
    x0 = to_float(read_pixels(holdout_images, chosen), device)
    labels = tensor(holdout_images.labels) if model.class_names else None
    labels = None if labels is None else labels[chosen].to(device)
    noise = torch.randn(x0.shape, generator=generator_for(evaluation.seed)).to(device)
    rows = []
    for point in range(evaluation.timestep_bins):
        timestep = int((point + 0.5) * len(schedule) / evaluation.timestep_bins)
        timesteps = torch.full((count,), timestep, device=device)
        losses = [
            diffusion_loss(
                network,
                schedule,
                target,
                x0[part],
                timesteps[part],
                noise[part],
                labels if labels is None else labels[part],
            )
            for part in torch.arange(count, device=device).split(batch_size_for(model.image_shape))
        ]
        rows.append({"timestep": timestep, "validation_loss": torch.cat(losses).mean().item()})
    return rows


def _check_shape(samples: Samples, training_images: ImageStore) -> None:
    if samples.images.shape[1:] != training_images.images.shape[1:]:
        raise UserError(
            f"The samples are {samples.images.shape[1:]}, but the training images {training_images.images.shape[1:]} "
            "(height, width, channels): the model was trained with other images."
        )


def _provenance(
    evaluation: EvaluationParameters,
    samples: Samples,
    training_images: ImageStore,
    holdout_images: ImageStore,
    feature_extractor: FeatureExtractor,
) -> Provenance:
    inputs = {
        "samples": samples.made_by.fingerprint,
        "training_images": training_images.made_by.fingerprint,
        "holdout_images": holdout_images.made_by.fingerprint,
        "feature_extractor": feature_extractor.made_by.fingerprint,
    }
    return Provenance({"evaluation": evaluation.fingerprint_fields()}, inputs)


def _beside_nearest(images: NDArray[Any], reference: ImageSubset, nearest: Nearest, shown: int) -> Image.Image:
    """Show the samples that are most similar to one training image, each above that image."""
    order = nearest.ratios.argsort()[:shown]
    rows = images[order.numpy()], reference[nearest.indices[order].numpy()]
    distances = [f"{distance:.0f}" for distance in nearest.distances[order].tolist()]
    return titled_rows(rows, ("sample", "nearest"), ("distance", *distances))
