"""Metrics compared with other implementations, and on images that are spoiled on purpose."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.classifier import fit_classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.metrics.neighbours import copying, nearest_images
from ddpm_kedro.metrics.scores import (
    Features,
    Score,
    all_scores,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from ddpm_kedro.pipelines.data_ingestion.nodes import download_images, prepare_images
from tests.conftest import EVALUATION, IMAGES, MADE_BY, make_store
from tests.ingestion.shards import decode_all
from tests.pipelines.test_nodes import DATASET


class Identity(nn.Module):
    """An extractor for torchmetrics that returns features unchanged."""

    num_features = 12

    def forward(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    mix = torch.randn(12, 12)
    return torch.randn(90, 12) @ mix + 0.3, torch.randn(90, 12) @ mix


def test_the_frechet_distance_equals_torchmetrics(features: tuple[Tensor, Tensor]) -> None:
    other = FrechetInceptionDistance(feature=Identity(), input_img_size=(12,)).set_dtype(torch.float64)
    other.update(features[1].double(), real=True)
    other.update(features[0].double(), real=False)
    assert frechet_distance(*features) == pytest.approx(float(other.compute()), rel=1e-4)


def test_the_frechet_distance_of_known_distributions() -> None:
    """Between normal distributions with covariances a²·1 and b²·1: squared distance of means + D·(a - b)²."""
    a, b = torch.randn(2, 100_000, 4, dtype=torch.float64)
    assert frechet_distance(a, 3 * b + 2) == pytest.approx(4 * 2**2 + 4 * (3 - 1) ** 2, rel=0.02)


def test_the_kernel_distance_equals_torchmetrics_if_a_subset_has_all_images(features: tuple[Tensor, Tensor]) -> None:
    other = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=90)
    other.update(features[1], real=True)
    other.update(features[0], real=False)
    assert kernel_distance(*features, subsets=1)[0] == pytest.approx(float(other.compute()[0]), rel=1e-4)


def test_the_inception_score_equals_torchmetrics() -> None:
    logits = 3 * torch.randn(200, 7)
    other = InceptionScore(feature=Identity(), splits=1)
    other.update(logits)
    assert inception_score(logits) == pytest.approx(float(other.compute()[0]), rel=1e-4)


def test_precision_and_recall_follow_their_definition(features: tuple[Tensor, Tensor]) -> None:
    samples, reference = (part.double().numpy() for part in (features[0][:40], features[1]))

    def covered(points: np.ndarray, by: np.ndarray) -> float:
        within = np.linalg.norm(by[:, None] - by[None], axis=2)
        radii = np.sort(within, axis=1)[:, 3]
        return float((np.linalg.norm(points[:, None] - by[None], axis=2) <= radii).any(axis=1).mean())

    precision, recall = precision_recall(features[0][:40], features[1])
    assert precision == pytest.approx(covered(samples, reference), abs=1e-4)
    assert recall == pytest.approx(covered(reference, samples), abs=1e-4)
    assert 0 < recall < precision


@pytest.fixture(scope="module")
def digits() -> tuple[ImageStore, ImageStore, FeatureExtractor]:
    """Training digits, holdout digits, and a classifier that was trained long enough."""
    training, holdout = (decode_all(lazy) for lazy in prepare_images(download_images(DATASET), IMAGES))
    network = fit_classifier(training, EVALUATION.model_copy(update={"fit_images": 12_800}))
    return training, holdout, FeatureExtractor("classifier", network, (1, 28, 28), training.class_names, MADE_BY)


def scores_of(images: np.ndarray, digits: tuple[ImageStore, ImageStore, FeatureExtractor]) -> dict[str, Score]:
    training, holdout, extractor = digits
    features = (Features(*extractor(part)) for part in (images, training.images, holdout.images))
    return {score.name.split("(")[0]: score for score in all_scores(*features, "classifier", 10)}


def verdict_on(images: np.ndarray, digits: tuple[ImageStore, ImageStore, FeatureExtractor]) -> str:
    training, holdout = (store.images for store in digits[:2])
    found = copying(nearest_images(images, training), nearest_images(holdout, training), len(training))
    verdict: str = found["verdict"]
    return verdict


def blurred(images: np.ndarray) -> np.ndarray:
    soft = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float(), 7, stride=1, padding=3)
    return soft.round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.slow
def test_real_images_score_well_and_are_no_copies(digits: tuple[ImageStore, ImageStore, FeatureExtractor]) -> None:
    found = scores_of(digits[1].images, digits)
    assert abs(found["KID"].value) < 3 * found["KID"].spread
    assert found["KID"].holdout_value == found["KID"].value_at_holdout_n
    assert found["precision"].value > 0.7
    assert found["recall"].value > 0.7
    assert verdict_on(digits[1].images, digits) == "no sign of copying"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "metric"),
    [
        (lambda images: np.repeat(images[:1], len(images), axis=0), "recall"),
        (lambda images: images[np.arange(len(images)) % 50], "recall"),  # one class alone
        (blurred, "KID"),
        (lambda images: 255 - images, "precision"),
    ],
    ids=["one image again and again", "a few images again and again", "blurred", "inverted"],
)
def test_spoiled_images_score_badly(
    spoil: Callable[[Any], Any], metric: str, digits: tuple[ImageStore, ImageStore, FeatureExtractor]
) -> None:
    found = scores_of(spoil(digits[1].images), digits)[metric]
    if found.better == "lower":
        assert found.value > 10 * abs(found.holdout_value) + 3 * found.spread
    else:
        assert found.value < 0.5 * found.holdout_value


@pytest.mark.slow
def test_copies_are_detected(digits: tuple[ImageStore, ImageStore, FeatureExtractor]) -> None:
    training, holdout, _ = digits
    assert verdict_on(training.images[:300], digits) == "copies training images"
    noisy = training.images[:300].astype(int) + np.random.default_rng(0).normal(0, 8, training.images[:300].shape)
    assert verdict_on(noisy.clip(0, 255).astype(np.uint8), digits) == "copies training images"
    mixed = np.concatenate([training.images[:30], holdout.images[:270]])
    assert verdict_on(mixed, digits) == "copies training images"
    assert verdict_on(blurred(holdout.images), digits) == "no sign of copying"


def test_the_nearest_image_is_found_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.metrics.neighbours.CHUNK", 7)
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    queries = images[[3, 39, 20]].copy()
    queries[0, 0, 0, 0] ^= 64
    found = nearest_images(queries, images)
    assert found.indices.tolist() == [3, 39, 20]
    assert found.distances.tolist() == pytest.approx([64 / 48**0.5, 0, 0], abs=0.1)
    assert found.ratios[0] < 0.2


def test_the_holdout_value_is_computed_from_all_classes_equally(
    digits: tuple[ImageStore, ImageStore, FeatureExtractor],
) -> None:
    """Stores are sorted by class: the first images would all be of one class."""
    _, holdout, extractor = digits
    chosen = Features(*extractor(holdout.images), torch.from_numpy(holdout.labels)).subset(100)
    assert chosen.labels.unique().tolist() == list(range(10))
    assert torch.equal(
        chosen.labels, Features(*extractor(holdout.images), torch.from_numpy(holdout.labels)).subset(100).labels
    )


def test_scores_that_need_more_samples_name_the_number() -> None:
    def random_features(count: int) -> Features:
        return Features(torch.randn(count, 64), torch.randn(count, 10), torch.zeros(count, dtype=torch.int64))

    scores = {
        score.name: score
        for score in all_scores(random_features(3), random_features(300), random_features(100), "classifier", 2)
    }
    assert scores["FD(classifier)"].value is None
    assert "at least 65 samples: sampling.num_images=65" in scores["FD(classifier)"].note
    assert "at least 20 samples" in scores["KID(classifier)"].note
    for name in ("precision(classifier)", "recall(classifier)", "IS(classifier)", "accuracy of classes"):
        assert "too few: needs at least 20 samples" in scores[name].note
    scores = {
        score.name: score
        for score in all_scores(random_features(80), random_features(300), random_features(30), "classifier", 2)
    }
    assert scores["FD(classifier)"].value > 0
    assert "no holdout value: there are fewer than 65" in scores["FD(classifier)"].note
    assert {scores[name].holdout_n for name in ("KID(classifier)", "accuracy of classes")} == {30}


@pytest.mark.parametrize(
    ("samples", "training", "holdout"), [(1, 1, 1), (30, 10, 2), (80, 10, 1), (80, 300, 1), (80, 1, 300), (300, 80, 4)]
)
def test_too_few_images_give_a_reason_in_place_of_nan(samples: int, training: int, holdout: int) -> None:
    def random_features(count: int) -> Features:
        return Features(torch.randn(count, 64), torch.randn(count, 10), torch.zeros(count, dtype=torch.int64))

    scores = all_scores(random_features(samples), random_features(training), random_features(holdout), "classifier", 2)
    json.dumps([score.as_dict() for score in scores], allow_nan=False)
    assert all(score.note for score in scores if score.value is None or score.holdout_value is None)
    notes = {score.name.split("(")[0]: score.note for score in scores}
    if samples >= 80 and training == 10:
        assert notes["KID"] == notes["recall"] == "too few: needs at least 20 training images"
        assert notes["FD"] == "too few: needs at least 65 training images"
    if samples >= 80 and training >= 80 and holdout < 5:
        assert notes["KID"] == "no holdout value: there are fewer than 20 holdout images"


def test_a_number_that_is_not_finite_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm_kedro.metrics.scores.frechet_distance", lambda *_: float("nan"))
    features = Features(torch.randn(80, 64), torch.randn(80, 10))
    [distance] = [
        score for score in all_scores(features, features, features, "classifier", 1) if score.name.startswith("FD")
    ]
    assert (distance.value, distance.holdout_value, distance.value_at_holdout_n) == (None, None, None)
    assert "no finite number" in distance.note


@pytest.mark.parametrize(
    ("samples", "training", "holdout", "words"),
    [
        (100, 100, 4, "at least 100 holdout images, not 4"),
        (100, 100, 99, "at least 100 holdout images, not 99"),
        (19, 100, 100, "at least 20 samples, not 19"),
        (100, 9, 100, "at least 10 training images, not 9"),
    ],
)
def test_few_images_give_no_verdict_on_copying(samples: int, training: int, holdout: int, words: str) -> None:
    rng = np.random.default_rng(0)
    images, references, others = (
        rng.integers(0, 256, (count, 4, 4, 1)).astype(np.uint8) for count in (samples, training, holdout)
    )
    found = copying(nearest_images(images, references), nearest_images(others, references), training)
    assert found["verdict"].startswith("no verdict on copying")
    assert words in found["verdict"]


def test_noise_is_no_copy_of_other_noise_with_the_smallest_number_of_images() -> None:
    rng = np.random.default_rng(0)
    images, references, others = (rng.integers(0, 256, (count, 4, 4, 1)).astype(np.uint8) for count in (100, 100, 100))
    found = copying(nearest_images(images, references), nearest_images(others, references), 100)
    assert found["verdict"] == "no sign of copying"


def test_only_scores_by_inception_have_the_names_of_the_literature() -> None:
    features = Features(torch.randn(30, 4), torch.randn(30, 3), torch.zeros(30, dtype=torch.int64))
    names = {
        name: [score.name for score in all_scores(features, features, features, name, 1)]
        for name in ("inception", "classifier")
    }
    assert names["inception"] == ["KID", "FID", "precision", "recall", "IS"]
    assert all("(classifier)" in name for name in names["classifier"][:-1])
    assert names["classifier"][-1] == "accuracy of classes"


def test_fitting_is_repeatable_and_leaves_the_global_generator_alone(store: ImageStore) -> None:
    before = torch.random.get_rng_state()
    one, two = (fit_classifier(store, EVALUATION) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    other = fit_classifier(store, EVALUATION.model_copy(update={"seed": 1}))
    assert not torch.equal(one.features[0].weight, other.features[0].weight)


@pytest.mark.parametrize("classes", [0, 1])
def test_images_without_classes_need_another_extractor(classes: int) -> None:
    store = make_store(classes=classes)
    with pytest.raises(UserError, match=r"Use evaluation.extractor=simclr"):
        fit_classifier(replace(store), EVALUATION)


def test_images_that_are_too_small_for_the_classifier_are_an_error() -> None:
    with pytest.raises(UserError, match=r"at least 8 pixels per side, but these are 8 high and 7 wide.*images.size"):
        fit_classifier(make_store(size=(8, 7)), EVALUATION)
