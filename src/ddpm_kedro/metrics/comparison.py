"""Compare samples with real images: scores, how far they can be trusted, and a verdict."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ddpm_kedro.images.store import ImageStore, ImageSubset
from ddpm_kedro.metrics.choice import unsupported_reason
from ddpm_kedro.metrics.extractor import NO_EXTRACTOR, FeatureExtractor
from ddpm_kedro.metrics.reliability import Reliability
from ddpm_kedro.metrics.scores import LEAST, Features, Score, all_scores, kernel_distance, withheld
from ddpm_kedro.metrics.simclr import random_views
from ddpm_kedro.metrics.verdict import Verdict, clouds, judge
from ddpm_kedro.parameters import EvaluationParameters

SUBSET = 100  # images in a subset for their KID
GROUP, GROUPS = 100, 5  # holdout images among which a view is searched, and number of such groups, at most
CLOUDS = 1000  # holdout images that are turned into clouds, at most


class Comparison(NamedTuple):
    """Scores and what they are worth."""

    scores: list[Score]
    reliability: Reliability | None
    verdict: Verdict
    warnings: tuple[str, ...]


def compare_images(
    images: NDArray[np.uint8],
    labels: Tensor | None,
    reference: ImageSubset,
    holdout: ImageStore,
    extractor: FeatureExtractor,
    evaluation: EvaluationParameters,
) -> Comparison:
    """Compare samples (N, H, W, C) with labels (N,) with training and holdout images.

    A network that was fitted without labels and finds images no better than by chance sees nothing in them: its scores
    are withheld.
    """
    if extractor.name == NO_EXTRACTOR:
        reason = unsupported_reason(len(reference), extractor.image_shape[1:])
        return Comparison([], None, Verdict(f"cannot be judged: {reason}", None), ())
    training, real = Features(*extractor(reference)), Features(*extractor(holdout.images), tensor(holdout.labels))
    samples = Features(*extractor(images), labels)
    scores = all_scores(samples, training, real, extractor.name, evaluation.kid_subsets)
    reliability = _measure_reliability(extractor, holdout, real, evaluation.seed)
    verdict = judge(scores, _clouds_kid(extractor, holdout, training, evaluation.kid_subsets), reliability)
    if reliability is not None and reliability.is_chance and reliability.measure == "retrieval":
        scores = withheld(scores, "the feature extractor finds images no better than by chance")
    return Comparison(scores, reliability, verdict, _warnings(reliability))


def tensor(labels: NDArray[Any] | None) -> Tensor | None:
    """Convert labels to a tensor."""
    return None if labels is None else torch.from_numpy(np.ascontiguousarray(labels))


def _measure_reliability(
    extractor: FeatureExtractor, holdout: ImageStore, features: Features, seed: int
) -> Reliability | None:
    """Measure what an extractor recognises in holdout images; None for an extractor with published weights.

    Args:
        features: the extractor's output for the holdout images, with their labels.
    """
    if extractor.name == "classifier" and features.labels is not None:
        accuracy = float((features.logits.argmax(1) == features.labels).float().mean())
        most_frequent = float(features.labels.bincount().max()) / len(features)
        return Reliability("accuracy", accuracy, most_frequent, len(features))
    return _retrieval(extractor, holdout, seed) if extractor.name == "simclr" else None


def _retrieval(extractor: FeatureExtractor, holdout: ImageStore, seed: int) -> Reliability:
    group = min(len(holdout), GROUP)
    n = group * min(len(holdout) // group, GROUPS)
    images = ImageSubset(holdout.images, np.linspace(0, len(holdout) - 1, n).astype(int))
    generator = torch.Generator().manual_seed(seed)
    views = (extractor(images, partial(random_views, generator=generator))[0] for _ in range(2))
    one, other = (F.normalize(view).view(group, -1, view.shape[1]).transpose(0, 1) for view in views)  # (groups, n, D)
    found = (one @ other.mT).argmax(2) == torch.arange(group)
    return Reliability("retrieval", float(found.float().mean()), 1 / group, n)


def _clouds_kid(
    extractor: FeatureExtractor, holdout: ImageStore, training: Features, subsets: int
) -> tuple[float, float] | None:
    """Return KID of holdout images that were turned into clouds, and its deviation; None for too few images."""
    count = min(len(holdout), CLOUDS)
    if min(count, len(training)) < LEAST:
        return None
    chosen = ImageSubset(holdout.images, np.linspace(0, len(holdout) - 1, count).astype(int))
    return kernel_distance(extractor(chosen, clouds)[0], training.features, subsets, SUBSET)


def _warnings(found: Reliability | None) -> tuple[str, ...]:
    if found is None:
        return ()
    if not found.is_known:
        few = f"at least {LEAST} holdout images show how far the metrics can be trusted, and there are {found.n}"
        return (f"The reliability of the feature extractor is unknown: {few}.",)
    if not found.is_weak:
        return ()
    what = "recognises the class of" if found.measure == "accuracy" else "finds another view of"
    return (
        f"The feature extractor is weak: it {what} {found.value:.0%} of the {found.n:,} holdout images (by chance "
        f"{found.chance:.1%}). The metrics may overlook differences that people see.",
    )
