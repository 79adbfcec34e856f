"""What the metrics are worth: reliability of the extractor, verdict on the samples, withheld scores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddpm_kedro.images.pixels import to_float, to_uint8
from ddpm_kedro.images.store import ImageStore, ImageSubset
from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.metrics.comparison import Comparison, compare_images
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.metrics.neighbours import copying, nearest_images
from ddpm_kedro.metrics.reliability import Reliability
from ddpm_kedro.metrics.scores import Score
from ddpm_kedro.metrics.simclr import SimCLR, fit_simclr, nt_xent, random_views
from ddpm_kedro.metrics.table import EXPLANATIONS, Metrics
from ddpm_kedro.metrics.verdict import clouds, judge
from tests.conftest import EVALUATION, MADE_BY, changed, make_store

CLOUDS = 2.0, 0.1  # KID and its deviation
GOOD = {"kid": 0.01, "holdout": 0.0, "n": 100, "precision": 0.8, "recall": 0.7}


def scores(kid: float | None, holdout: float | None, n: int, precision: float, recall: float) -> list[Score]:
    note = "" if kid is not None else "too few: needs at least 20 samples"
    return [
        Score("KID(classifier)", kid, n, "lower", kid, holdout, n, note=note),
        Score("precision(classifier)", precision, n, "higher", precision, 0.9, n),
        Score("recall(classifier)", recall, n, "higher", recall, 0.8, n),
    ]


@pytest.mark.parametrize(
    ("changes", "words", "is_far"),
    [
        ({}, "close to real images: KID 0.01 (real images 0, clouds of their colours 2)", False),
        ({"kid": -0.01}, "close to real images", False),
        ({"kid": 0.3}, "between real images and clouds", False),
        ({"recall": 0.5}, "between real images and clouds", False),
        ({"precision": 0.7}, "between real images and clouds", False),
        ({"kid": 1.1}, "far from real images: KID 1.1", True),
        ({"kid": 0.9}, "between real images and clouds", False),
        ({"kid": 3.0, "precision": 0.93}, "far from real images", True),
        ({"precision": 0.4}, "far from real images", True),
        ({"kid": None}, "cannot be judged: too few: needs at least 20 samples", None),
        ({"n": 49}, "cannot be judged: too few: needs at least 50 samples", None),
        ({"holdout": 1.9}, "cannot be judged: the features do not distinguish real images from clouds", None),
    ],
)
def test_samples_are_judged_between_real_images_and_clouds(
    changes: dict[str, Any], words: str, is_far: bool | None
) -> None:
    verdict = judge(scores(**GOOD | changes), CLOUDS, Reliability("accuracy", 0.9, 0.1, 500))
    assert verdict.text.startswith(words)
    assert verdict.is_far is is_far


def test_an_extractor_at_chance_level_judges_nothing() -> None:
    verdict = judge(scores(**GOOD), CLOUDS, Reliability("accuracy", 0.11, 0.1, 500))
    assert verdict.text == "cannot be judged: the feature extractor is at chance level (11%)"


@pytest.mark.parametrize(
    ("value", "chance", "n", "expected"),
    [
        (0.54, 0.1, 1000, (True, False, True)),  # halfway between chance and 1 is 0.55
        (0.56, 0.1, 1000, (True, False, False)),
        (0.94, 0.9, 1000, (True, False, True)),
        (0.12, 0.1, 500, (True, True, True)),  # within two standard errors, 0.027
        (0.13, 0.1, 500, (True, False, True)),
        (0.0, 0.5, 19, (False, False, False)),
        (0.0, 1.0, 1, (False, False, False)),
    ],
)
def test_reliability_is_compared_with_chance(value: float, chance: float, n: int, expected: tuple[bool, ...]) -> None:
    found = Reliability("accuracy", value, chance, n)
    assert (found.is_known, found.is_chance, found.is_weak) == expected


@pytest.mark.parametrize("size", [(8, 8), (9, 16)])
def test_clouds_keep_the_spectrum_and_the_mean_of_images_but_not_their_shapes(size: tuple[int, int]) -> None:
    images = torch.rand(5, 3, *size) * 0.2 - 0.1
    changed_images = clouds(images)
    spectra = [torch.fft.fft2(each).abs() for each in (images, changed_images)]
    torch.testing.assert_close(*spectra, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(images.mean((2, 3)), changed_images.mean((2, 3)))
    assert (images - changed_images).abs().mean() > 0.02


def compared(training: ImageStore, holdout: ImageStore, samples: np.ndarray, network: Any) -> Comparison:
    name = "classifier" if isinstance(network, Classifier) else "simclr"
    names = training.class_names if name == "classifier" else ()
    extractor = FeatureExtractor(name, network.eval(), training.image_shape, names, MADE_BY)
    reference = ImageSubset(training.images, np.arange(len(training)))
    return compare_images(samples, None, reference, holdout, extractor, EVALUATION)


def test_scores_of_features_that_see_nothing_are_withheld() -> None:
    """All images are equal, so that no view can be found again."""
    store = replace(make_store(120, classes=0), images=np.full((120, 8, 8, 1), 99, dtype=np.uint8))
    found = compared(store, store, store.images, SimCLR(1))
    assert found.reliability.is_chance
    assert found.verdict.text.startswith("cannot be judged: the feature extractor is at chance level")
    assert {(score.value, score.holdout_value) for score in found.scores} == {(None, None)}
    assert all(score.note.startswith("withheld: ") for score in found.scores)
    assert "is weak: it finds another view of" in found.warnings[0]


def test_features_without_labels_recognise_views_of_images_and_see_clouds() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] / 15
    places, radii = rng.uniform(0.2, 0.8, (460, 2, 1, 1)), rng.uniform(0.1, 0.3, (460, 1, 1))
    discs = (np.hypot(y - places[:, 0], x - places[:, 1]) < radii)[..., None] * rng.integers(60, 256, (460, 1, 1, 3))
    discs = discs.astype(np.uint8)
    stores = [ImageStore(part, None, (), MADE_BY) for part in (discs[:300], discs[300:400])]
    network = fit_simclr(stores[0], changed(EVALUATION, fit_images=1280, fit_batch_size=32))
    views = [random_views(to_float(torch.from_numpy(discs[300:400]))) for _ in range(2)]
    losses = [nt_xent(each.eval()(torch.cat(views))[1]).item() for each in (network, SimCLR(3))]
    assert losses[0] < losses[1] - 0.1
    found = compared(*stores, discs[400:], network)
    assert not found.reliability.is_chance
    assert found.verdict.is_far is False
    spoiled = to_uint8(clouds(to_float(torch.from_numpy(discs[400:])))).numpy()
    assert compared(*stores, spoiled, network).verdict.is_far is True


def test_accuracy_of_the_classifier_is_beside_the_most_frequent_class() -> None:
    store = make_store(40)
    holdout = replace(store, labels=np.array([0] * 30 + [1] * 10))
    network = Classifier(1, 3)
    torch.nn.init.constant_(network.logits[1].bias, 0)
    network.logits[1].bias.data[1] = 1e3
    found = compared(store, holdout, store.images, network).reliability
    assert found == Reliability("accuracy", 0.25, 0.75, 40)


@pytest.mark.parametrize(
    ("is_far", "words"),
    [
        (False, "no sign of copying"),
        (True, "no verdict on copying: the samples are far from real images"),
        (None, "no sign of copying, if the samples look like real images, which could not be judged"),
    ],
)
def test_copying_is_not_judged_from_noise(is_far: bool | None, words: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
    samples, holdout = (nearest_images(part, images[:100]) for part in (images[100:200], images[200:]))
    assert copying(samples, holdout, 100, is_far)["verdict"].startswith(words)
    copies = nearest_images(images[:50], images[:100])
    assert copying(copies, holdout, 100, is_far)["verdict"] == "copies training images"


def test_metrics_of_an_earlier_version_are_read() -> None:
    content = Metrics(scores(**GOOD), {}, {}, "classifier", 5, MADE_BY).as_dict()
    for name in ("reliability", "verdict", "warnings"):
        del content[name]
    found = Metrics.from_dict(content, MADE_BY)
    assert (found.reliability, found.verdict, found.warnings) == (None, "", ())
    full = replace(found, reliability=Reliability("retrieval", 0.4, 0.01, 500), verdict="close", warnings=("a", "b"))
    assert Metrics.from_dict(full.as_dict(), MADE_BY) == full
    assert full.rows()[-1] == ["retrieval by the extractor", "", "", "0.4", "500", "by chance: 0.01"]


def test_every_metric_is_explained_in_a_sentence() -> None:
    names = {score.name.partition("(")[0] for score in scores(**GOOD)} | {"FD", "FID", "IS", "accuracy of classes"}
    assert set(EXPLANATIONS) == names
    assert all(text.endswith(".") and ". " not in text for text in EXPLANATIONS.values())


def test_memory_of_the_search_for_neighbours_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more pixels are converted at once than CHUNK_BYTES allows, of queries and of training images."""
    monkeypatch.setattr("ddpm_kedro.metrics.neighbours.CHUNK_BYTES", 4 * 48 * 7)
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
    sizes, cdist = set[tuple[int, int]](), torch.cdist

    def counted(a: torch.Tensor, b: torch.Tensor, **options: Any) -> torch.Tensor:
        sizes.add((len(a), len(b)))
        return cdist(a, b, **options)

    monkeypatch.setattr(torch, "cdist", counted)
    assert nearest_images(images, ImageSubset(images, np.arange(40)[::-1])).indices.tolist() == [*range(39, -1, -1)]
    assert max(max(size) for size in sizes) == 7
