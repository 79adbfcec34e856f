"""Figures that compare sets of images by their features; what computes them is torch-fidelity.

Each is given beside its floor: the hold-out's figure against the same training images, at the same number of images.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

NEIGHBOURHOOD = 3  # of precision and recall
LEAST_FOR_KID = 20


@dataclass(frozen=True)
class Figure:
    """One figure of merit.

    Attributes:
        name: KID, FID, …; with the extractor's name where that is not Inception.
        value: of the samples; None where it cannot be computed. No number is infinite or NaN.
        n: number of samples.
        at_floor_n: the samples' value at the number of images that the floor has.
        floor: the hold-out's value.
        floor_n: number of images of the floor.
        spread: standard deviation of the value over random subsets.
        better: lower, or higher.
        note: why there is no value.
    """

    name: str
    value: float | None
    n: int
    better: str
    at_floor_n: float | None = None
    floor: float | None = None
    floor_n: int = 0
    spread: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Features:
    """Images as an extractor sees them.

    Attributes:
        features: (N, D).
        logits: (N, K).
        labels: (N,) int64, the classes they are meant to be, or None.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def some(self, count: int) -> "Features":
        """So many of them, chosen at random, always the same ones."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:count]
        return Features(
            self.features[chosen], self.logits[chosen], None if self.labels is None else self.labels[chosen]
        )


def all_scores(
    samples: Features, training: Features, holdout: Features, extractor: str, kid_subsets: int
) -> list[Figure]:
    """KID, FID, precision, recall and IS of samples, and the accuracy of their classes where they have some.

    The reference are the training images. Only with Inception's features they are called FID, KID and IS as such.
    """
    count = min(len(samples), len(holdout))
    shorter, floor = samples.some(count), holdout.some(count)
    suffix = "" if extractor == "inception" else f"({extractor})"
    figures = [_kid(f"KID{suffix}", samples, shorter, floor, training, kid_subsets)]
    dimensions = training.features.shape[1]
    name = "FID" if extractor == "inception" else f"FD{suffix}"
    figures.append(_against(name, frechet_distance, dimensions + 1, "lower", samples, shorter, floor, training))
    both = lru_cache(precision_recall)  # tensors are told apart by what they are, not by what they hold
    for index, kind in enumerate(("precision", "recall")):
        measure = partial(_part, both, index)
        figures.append(
            _against(f"{kind}{suffix}", measure, NEIGHBOURHOOD + 1, "higher", samples, shorter, floor, training)
        )
    score, at_floor, best = (inception_score(seen.logits) for seen in (samples, shorter, floor))
    figures.append(Figure(f"IS{suffix}", score, len(samples), "higher", at_floor, best, count))
    if samples.labels is not None and extractor == "classifier":
        right = [_accuracy(seen) for seen in (samples, shorter, floor)]
        figures.append(Figure("accuracy of classes", right[0], len(samples), "higher", right[1], right[2], count))
    return [_finite(figure) for figure in figures]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between normal distributions fitted to features (N, D), (M, D) (Heusel et al. 2017)."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: PLC0415

    statistics = (fid_features_to_statistics(features) for features in (a, b))
    distance: float = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    return distance


def kernel_distance(a: Tensor, b: Tensor, subsets: int, subset_size: int = 1000) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018): mean and standard deviation over random subsets of both.

    A subset has ``subset_size`` images, or as many as there are; unbiased at any number.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415

    size = min(len(a), len(b), subset_size)
    found = kid_features_to_metric(a, b, kid_subsets=subsets, kid_subset_size=size, rng_seed=0, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def precision_recall(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """Kynkäänniemi et al. (2019): the share of samples near the reference, and of the reference near samples."""
    from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: PLC0415

    found = prc_features_to_metric(samples, reference, prc_neighborhood=NEIGHBOURHOOD, save_cpu_ram=True, verbose=False)
    return found["precision"], found["recall"]


def inception_score(logits: Tensor) -> float:
    """Salimans et al. (2016), over all images at once."""
    from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: PLC0415

    score: float = isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    return score


def _kid(name: str, samples: Features, shorter: Features, floor: Features, training: Features, subsets: int) -> Figure:
    spreads = []

    def measure(a: Tensor, b: Tensor) -> float:
        value, spread = kernel_distance(a, b, subsets)
        spreads.append(spread)
        return value

    figure = _against(name, measure, LEAST_FOR_KID, "lower", samples, shorter, floor, training)
    return replace(figure, spread=spreads[0]) if spreads else figure


def _against(
    name: str,
    measure: Any,
    least: int,
    better: str,
    samples: Features,
    shorter: Features,
    floor: Features,
    training: Features,
) -> Figure:
    for what, seen in ((f"samples: sampling.num_images={least}", samples), ("training images", training)):
        if len(seen) < least:
            return Figure(name, None, len(samples), better, note=f"needs at least {least} {what}")
    value = measure(samples.features, training.features)
    if len(floor) < least:
        return Figure(name, value, len(samples), better, note=f"no floor: the hold-out has fewer than {least} images")
    at_floor, best = (measure(seen.features, training.features) for seen in (shorter, floor))
    return Figure(name, value, len(samples), better, at_floor, best, len(floor))


def _finite(figure: Figure) -> Figure:
    """Return the figure without the numbers that are NaN or infinite, with a note in their place."""
    numbers = {name: getattr(figure, name) for name in ("value", "at_floor_n", "floor", "spread")}
    finite = {name: number for name, number in numbers.items() if number is None or math.isfinite(number)}
    if len(finite) == len(numbers):
        return figure
    note = figure.note or "these images give no finite number"
    return replace(figure, **{**dict.fromkeys(numbers), **finite, "note": note})


def _part(measure: Callable[[Tensor, Tensor], tuple[float, float]], index: int, a: Tensor, b: Tensor) -> float:
    return measure(a, b)[index]


def _accuracy(seen: Features) -> float | None:
    if seen.labels is None:
        return None
    return float((seen.logits.argmax(1) == seen.labels).float().mean())
