"""Feature extractors on disk: one per set of images, fitted once, resumed after an interruption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DatasetError

from ddpm_kedro.datasets.feature_extractor import STATE, FeatureExtractorDataset
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.pipelines.evaluation.nodes import fit_feature_extractor
from ddpm_kedro.provenance import Provenance
from tests.conftest import EVALUATION, changed, make_store


@pytest.fixture
def dataset(tmp_path: Path) -> FeatureExtractorDataset:
    return FeatureExtractorDataset(filepath=str(tmp_path / "feature_extractor"))


def not_fitted(lazy: LazyFeatureExtractor) -> LazyFeatureExtractor:
    def fail(_: Any) -> FeatureExtractor:
        raise AssertionError("fitted again")

    return replace(lazy, read=fail)


def other_images(store: ImageStore) -> ImageStore:
    return replace(store, made_by=Provenance({}, {}))


def test_a_saved_extractor_is_not_fitted_again(store: ImageStore, dataset: FeatureExtractorDataset) -> None:
    with pytest.raises(DatasetError, match="No feature extractor in"):
        dataset.load()
    fitted = fit_feature_extractor(store, EVALUATION, {"num_images": 24})
    dataset.save(fitted)
    loaded, first = dataset.load(), fitted.read()
    assert all(torch.equal(a, b) for a, b in zip(loaded(store.images), first(store.images), strict=True))
    assert dataset.fingerprint() == loaded.made_by.fingerprint == fitted.made_by.fingerprint
    dataset.save(not_fitted(fitted))
    dataset.save(not_fitted(fit_feature_extractor(store, EVALUATION, {"num_images": 99})))  # other samples
    assert fit_feature_extractor(store, changed(EVALUATION, timestep_bins=9)).made_by == fitted.made_by
    assert fit_feature_extractor(store, changed(EVALUATION, fit_images=9)).made_by != fitted.made_by
    assert fit_feature_extractor(other_images(store), EVALUATION).made_by != fitted.made_by


def test_an_extractor_of_an_earlier_version_is_used(store: ImageStore, dataset: FeatureExtractorDataset) -> None:
    """Its provenance names extractor, seed, length and batch size, as before."""
    made_by = fit_feature_extractor(store, EVALUATION).made_by
    evaluation = {"extractor": "classifier", "seed": 0, "fit_images": 64, "fit_batch_size": 16}
    assert made_by == Provenance({"evaluation": evaluation}, {"training_images": store.made_by.fingerprint})
    large = fit_feature_extractor(make_store(size=(80, 100)), EVALUATION).made_by
    assert large.parameters["evaluation"] == evaluation | {"reduced_to": [51, 64]}


def test_several_sets_of_images_keep_their_extractors(store: ImageStore, dataset: FeatureExtractorDataset) -> None:
    one, other = (fit_feature_extractor(each, EVALUATION) for each in (store, other_images(store)))
    for lazy in (one, other, not_fitted(one), not_fitted(other), not_fitted(one)):
        dataset.save(lazy)
        assert dataset.load().made_by == lazy.made_by
    without_classes = fit_feature_extractor(make_store(classes=0), EVALUATION)
    dataset.save(without_classes)
    assert dataset.load().name == "simclr"
    assert dataset.load().made_by.fingerprint == without_classes.made_by.fingerprint
    dataset.save(not_fitted(one))


def test_an_extractor_is_used_whatever_the_length_of_its_fit_unless_another_is_requested(
    store: ImageStore, dataset: FeatureExtractorDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = fit_feature_extractor(store, EVALUATION)
    dataset.save(first)
    dataset.save(not_fitted(fit_feature_extractor(store, changed(EVALUATION, fit_images=32))))
    assert "was fitted with 64 images, not evaluation.fit_images = 32. evaluation.refit=true" in caplog.text
    assert dataset.load().made_by == first.made_by
    exact = fit_feature_extractor(store, changed(EVALUATION, fit_images=32, refit=True))
    dataset.save(exact)
    dataset.save(not_fitted(exact))
    assert dataset.load().made_by == exact.made_by != first.made_by
    caplog.clear()
    dataset.save(not_fitted(first))
    assert dataset.load().made_by == first.made_by
    assert not caplog.text
    dataset.save(not_fitted(fit_feature_extractor(store, changed(EVALUATION, fit_images=16))))
    assert dataset.load().made_by == first.made_by  # the longest fit
    other_seed = fit_feature_extractor(store, changed(EVALUATION, seed=1))
    with pytest.raises(DatasetError, match="fitted again"):
        dataset.save(not_fitted(other_seed))


def test_only_refit_makes_the_length_of_the_fit_a_reason_to_evaluate_again() -> None:
    one, other = (changed(EVALUATION, fit_images=n).fingerprint_fields() for n in (9, 10))
    assert one == other
    one, other = (changed(EVALUATION, fit_images=n, refit=True).fingerprint_fields() for n in (9, 10))
    assert one != other


@pytest.mark.parametrize("classes", [0, 3])
def test_an_interrupted_fit_resumes_and_ends_with_equal_weights(
    classes: int, dataset: FeatureExtractorDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("ddpm_kedro.metrics.fitting.SAVE_INTERVAL", 0)
    lazy = fit_feature_extractor(make_store(classes=classes), changed(EVALUATION, fit_images=160))
    expected = lazy.read().state()
    for step in (2, 3):
        monkeypatch.setattr("ddpm_kedro.metrics.fitting.progress", lambda *_, step=step: Interrupted(step))
        with pytest.raises(KeyboardInterrupt):
            dataset.save(lazy)
    state = next(dataset._filepath.parent.rglob(STATE))
    monkeypatch.undo()
    caplog.set_level("INFO")
    dataset.save(lazy)
    assert "The fit resumes after 3 steps." in caplog.text
    assert not state.exists()
    found = dataset.load().state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Interrupted:
    """A progress bar that ends the fit after a number of steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __enter__(self) -> Any:
        return self.advance

    def __exit__(self, *_: object) -> None: ...

    def advance(self, more: int) -> None:
        self.left -= more
        if self.left <= 0:
            raise KeyboardInterrupt


def test_a_damaged_state_of_a_fit_starts_it_from_scratch(
    store: ImageStore, dataset: FeatureExtractorDataset, caplog: pytest.LogCaptureFixture
) -> None:
    lazy = fit_feature_extractor(store, EVALUATION)
    state = dataset._filepath.with_name("feature_extractors") / lazy.made_by.fingerprint / STATE
    state.parent.mkdir(parents=True)
    state.write_bytes(b"PK")
    dataset.save(lazy)
    assert "The fit starts from scratch." in caplog.text
    assert not state.exists()
    assert dataset.load().made_by == lazy.made_by
