"""Metrics that compare sets of images by their features, computed by torch-fidelity.

For each metric a second value is computed: holdout images, instead of samples, compared with the same training images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

NEIGHBOURHOOD = 3  # number of nearest neighbours, for precision and recall
LEAST = 20  # images, below which a value would be chance
WITH_CLASSES = ("classifier", "inception")
"""Extractors with logits of classes, which IS needs."""
JSON_KEYS = {"value_at_holdout_n": "at_floor_n", "holdout_value": "floor", "holdout_n": "floor_n"}


@dataclass(frozen=True)
class Score:
    """The value of one metric. No number is infinite or NaN.

    Attributes:
        name: name of the metric (KID, FID, …), followed by the extractor's name unless that is Inception.
        value: value of the samples; None if it cannot be computed.
        n: number of samples.
        better: whether a "lower" or a "higher" value is better.
        value_at_holdout_n: value of only ``holdout_n`` samples, so that it is comparable with ``holdout_value``.
        holdout_value: value of holdout images instead of samples.
        holdout_n: number of holdout images.
        spread: standard deviation of the value over random subsets.
        note: reason why there is no value.
    """

    name: str
    value: float | None
    n: int
    better: str
    value_at_holdout_n: float | None = None
    holdout_value: float | None = None
    holdout_n: int = 0
    spread: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, with the keys of ``metrics.json``."""
        return {JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`as_dict` returned."""
        names = {key: name for name, key in JSON_KEYS.items()}
        return cls(**{names.get(key, key): value for key, value in content.items()})


@dataclass(frozen=True)
class Features:
    """A feature extractor's output for N images.

    Attributes:
        features: features of the images, (N, D).
        logits: logits of the images, (N, K).
        labels: intended classes, (N,) int64, or None.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, count: int) -> "Features":
        """Return ``count`` random images; always the same ones."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:count]
        labels = None if self.labels is None else self.labels[chosen]
        return Features(self.features[chosen], self.logits[chosen], labels)


def all_scores(
    samples: Features, training: Features, holdout: Features, extractor: str, kid_subsets: int
) -> list[Score]:
    """Compute KID, FID, precision, recall and IS of samples, and the accuracy of their classes if they have any.

    The reference is the training images. The names KID, FID and IS without a suffix mean Inception's features. With
    too few images, a score has a note instead of a value.
    """
    suffix = "" if extractor == "inception" else f"({extractor})"
    count = min(len(samples), len(holdout))
    comparison = _Comparison(samples, samples.subset(count), holdout.subset(count), training)
    kid = lru_cache(partial(kernel_distance, subsets=kid_subsets))  # the cache is keyed by tensor identity
    both = lru_cache(precision_recall)
    least_for_fid = training.features.shape[1] + 1
    scores = [
        comparison.compare(f"KID{suffix}", lambda a, b: kid(a, b)[0], LEAST, "lower"),
        comparison.compare("FID" if not suffix else f"FD{suffix}", frechet_distance, least_for_fid, "lower"),
        comparison.compare(f"precision{suffix}", lambda a, b: both(a, b)[0], LEAST, "higher"),
        comparison.compare(f"recall{suffix}", lambda a, b: both(a, b)[1], LEAST, "higher"),
    ]
    if extractor in WITH_CLASSES:
        scores.append(comparison.measure(f"IS{suffix}", lambda images: inception_score(images.logits)))
    if scores[0].value is not None:
        scores[0] = replace(scores[0], spread=kid(samples.features, training.features)[1])
    if samples.labels is not None and extractor == "classifier":
        scores.append(comparison.measure("accuracy of classes", _accuracy))
    return [_without_nan(score) for score in scores]


def withheld(scores: Sequence[Score], reason: str) -> list[Score]:
    """Return the scores without their values, with a note that says why."""
    empty: dict[str, Any] = dict.fromkeys(("value", "value_at_holdout_n", "holdout_value", "spread"))
    return [replace(score, **empty, note=f"withheld: {reason}") for score in scores]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute the Fréchet distance between normal distributions fitted to features (N, D), (M, D).

    FID is this distance for the features of Inception-v3 (Heusel et al. 2017).
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: PLC0415

    statistics = (fid_features_to_statistics(features) for features in (a, b))
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def kernel_distance(a: Tensor, b: Tensor, subsets: int, subset_size: int = 1000) -> tuple[float, float]:
    """Compute KID (Bińkowski et al. 2018): mean and standard deviation over random subsets of ``a`` and ``b``.

    It is unbiased for any number of images. A subset has ``subset_size`` images, or all if there are fewer.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415

    size = min(len(a), len(b), subset_size)
    found = kid_features_to_metric(a, b, kid_subsets=subsets, kid_subset_size=size, rng_seed=0, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def precision_recall(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """Compute the share of samples near the reference, and of the reference near samples (Kynkäänniemi et al. 2019)."""
    from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: PLC0415

    found = prc_features_to_metric(samples, reference, prc_neighborhood=NEIGHBOURHOOD, save_cpu_ram=True, verbose=False)
    return found["precision"], found["recall"]


def inception_score(logits: Tensor) -> float:
    """Compute the inception score (Salimans et al. 2016) of all images at once."""
    from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: PLC0415

    return float(isc_features_to_metric(logits, splits=1)["inception_score_mean"])


class _Comparison(NamedTuple):
    """The sets of images in a comparison; ``fewer`` is a random subset of the samples, as large as ``holdout``."""

    samples: Features
    fewer: Features
    holdout: Features
    training: Features

    def compare(self, name: str, metric: Callable[[Tensor, Tensor], float], least: int, better: str) -> Score:
        """Score images by a metric that compares their features with the training images'."""
        score = Score(name, None, len(self.samples), better)
        if note := self._too_few(least) or _too_few(self.training, least, "training images"):
            return replace(score, note=note)
        value, fewer, holdout = (
            metric(images.features, self.training.features) if len(images) >= least else None
            for images in (self.samples, self.fewer, self.holdout)
        )
        if holdout is None:
            return replace(score, value=value, note=_no_holdout_value(self.holdout, least))
        return replace(score, value=value, value_at_holdout_n=fewer, holdout_value=holdout, holdout_n=len(self.holdout))

    def measure(self, name: str, metric: Callable[[Features], float | None]) -> Score:
        """Score images by a metric without a reference; higher is better."""
        if note := self._too_few(LEAST):
            return Score(name, None, len(self.samples), "higher", note=note)
        if note := _no_holdout_value(self.holdout, LEAST):
            return Score(name, metric(self.samples), len(self.samples), "higher", note=note)
        value, fewer, holdout = (metric(images) for images in (self.samples, self.fewer, self.holdout))
        return Score(name, value, len(self.samples), "higher", fewer, holdout, len(self.holdout))

    def _too_few(self, least: int) -> str:
        return _too_few(self.samples, least, f"samples: sampling.num_images={least}")


def _no_holdout_value(images: Features, least: int) -> str:
    """Return a note if there are too few holdout images for a metric, otherwise nothing."""
    return f"no holdout value: there are fewer than {least} holdout images" if len(images) < least else ""


def _too_few(images: Features, least: int, description: str) -> str:
    """Return a note if there are too few images for a metric, otherwise nothing."""
    return f"too few: needs at least {least} {description}" if len(images) < least else ""


def _without_nan(score: Score) -> Score:
    """Replace numbers that are NaN or infinite by None, with a note."""
    names = ("value", "value_at_holdout_n", "holdout_value", "spread")
    not_finite = [name for name in names if not math.isfinite(getattr(score, name) or 0)]
    if not not_finite:
        return score
    changes: dict[str, Any] = dict.fromkeys(not_finite)
    return replace(score, **changes, note=score.note or "these images give no finite number")


def _accuracy(images: Features) -> float | None:
    if images.labels is None:
        return None
    return float((images.logits.argmax(1) == images.labels).float().mean())
