"""The nodes of evaluation and reporting."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from markupsafe import escape
from PIL import Image

from ddpm_kedro.datasets.animation import AnimationDataset
from ddpm_kedro.datasets.feature_extractor import FeatureExtractorDataset
from ddpm_kedro.datasets.figure import FigureDataset, FigureFolderDataset
from ddpm_kedro.datasets.metrics import MetricsDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics import extractor as extractors
from ddpm_kedro.metrics.table import EXPLANATIONS, Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.pipelines.evaluation.nodes import evaluate_samples, fit_feature_extractor, measure_loss_by_timestep
from ddpm_kedro.pipelines.reporting.nodes import (
    draw_trajectory,
    film_training,
    plot_loss_by_timestep,
    plot_training,
    write_report,
)
from ddpm_kedro.reporting.animation import Frames
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import EVALUATION, MADE_BY, MODEL, REPORTING, changed, make_store

REPORT = {
    "num_images": 24,
    "seconds": 1.5,
    "sampler": "ddim",
    "num_inference_steps": 4,
    "guidance_scale": 1.5,
    "network_evaluations": 8,
}
ROW = {
    "images_seen": 16.0,
    "loss": 0.5,
    "learning_rate": 1e-3,
    "gradient_norm": 1.0,
    "images_per_second": 9.0,
    "validation_loss": 0.4,
}


@pytest.fixture
def samples(store: ImageStore) -> Samples:
    chosen = np.arange(24)
    return Samples(255 - store.images[chosen], store.labels[chosen], store.class_names, MADE_BY)


def evaluate(samples: Samples, store: ImageStore, **changes: Any) -> Any:
    parameters = changed(EVALUATION, **changes)
    fitted = fit_feature_extractor(store, parameters).read()
    return evaluate_samples(samples, REPORT, store, make_store(25), fitted, parameters)


def test_scores_come_with_the_conditions_they_were_measured_in(samples: Samples, store: ImageStore) -> None:
    metrics, grid = evaluate(samples, store)
    assert metrics.samples == REPORT
    assert (metrics.extractor, metrics.reference_images) == ("classifier", 40)
    assert set(metrics.made_by.inputs) == {"samples", "training_images", "holdout_images", "feature_extractor"}
    kid = next(score for score in metrics.scores if score.name == "KID(classifier)")
    assert kid.n == kid.holdout_n == 24
    assert kid.value > kid.holdout_value
    assert grid.width == 76 + 3 * 60 + 4


def test_labels_unknown_to_the_classifier_are_not_evaluated(samples: Samples, store: ImageStore) -> None:
    for other in (samples._replace(class_names=("a", "b", "c")), samples._replace(labels=None, class_names=())):
        assert "accuracy of classes" not in {score.name for score in evaluate(other, store)[0].scores}


@pytest.mark.parametrize("classes", [0, 1])
def test_images_without_classes_are_evaluated_with_features_learnt_without_labels(
    classes: int, samples: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    metrics, _ = evaluate(samples._replace(labels=None, class_names=()), make_store(classes=classes))
    assert "These images have no classes: SimCLR fits the feature extractor" in caplog.text
    assert [score.name for score in metrics.scores] == [
        f"{name}(simclr)" for name in ("KID", "FD", "precision", "recall")
    ]
    assert metrics.extractor == "simclr"
    assert (metrics.reliability.measure, metrics.reliability.n) == ("retrieval", 25)


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (make_store(1), "a feature extractor needs at least 2 training images, not 1"),
        (
            make_store(size=(8, 7)),
            "a feature extractor needs images of at least 8 pixels per side, but these are",
        ),
    ],
)
def test_images_that_allow_no_extractor_are_evaluated_without_scores(
    store: ImageStore, reason: str, tmp_path: Path
) -> None:
    dataset = FeatureExtractorDataset(filepath=str(tmp_path / "extractor"))
    dataset.save(fit_feature_extractor(store, EVALUATION))
    samples = Samples(store.images[:1], store.labels[:1], store.class_names, MADE_BY)
    metrics, _ = evaluate_samples(samples, REPORT, store, store, dataset.load(), EVALUATION)
    assert (metrics.scores, metrics.reliability) == ([], None)
    assert metrics.verdict.startswith(f"cannot be judged: {reason}")
    assert "no verdict on copying" in metrics.copying["verdict"]
    json.dumps(metrics.as_dict(), allow_nan=False)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("count", "holdout"), [(2, 1), (9, 1), (30, 1)])
def test_few_images_are_evaluated_without_a_number_that_would_be_chance(
    count: int, holdout: int, classes: int, samples: Samples, tmp_path: Path
) -> None:
    store, real = make_store(count, classes), make_store(holdout, classes)
    fitted = fit_feature_extractor(store, EVALUATION).read()
    metrics, _ = evaluate_samples(samples, REPORT, store, real, fitted, EVALUATION)
    assert metrics.verdict.startswith("cannot be judged: ")
    assert all(score.note for score in metrics.scores)
    assert metrics.warnings == (
        "The reliability of the feature extractor is unknown: at least 20 holdout images show how far the metrics can "
        "be trusted, and there are 1.",
    )
    json.dumps(metrics.as_dict(), allow_nan=False)


def test_samples_of_another_shape_are_refused(samples: Samples, store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"The samples are \(8, 4, 1\), but the training images \(8, 8, 1\)"):
        evaluate(samples._replace(images=samples.images[:, :, :4]), store)


def test_the_number_of_reference_images_is_limited(samples: Samples, store: ImageStore) -> None:
    assert evaluate(samples, store, reference_images=30)[0].reference_images == 30


def test_metrics_are_saved_and_shown_as_a_table(samples: Samples, store: ImageStore, tmp_path: Path) -> None:
    dataset = MetricsDataset(filepath=str(tmp_path / "metrics.json"))
    with pytest.raises(DatasetError, match="No metrics in"):
        dataset.load()
    metrics, _ = evaluate(samples, store)
    dataset.save(metrics)
    assert dataset.load() == metrics
    table = dataset.preview()
    names = [score.name for score in metrics.scores]
    assert [row[0] for row in table["data"]] == [*names, "accuracy of the extractor"]
    assert "needs at least 65 samples" in str(table["data"])


def test_missing_or_other_inception_weights_are_an_error(store: ImageStore, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    parameters = changed(EVALUATION, extractor="inception", inception_weights=str(path))
    with pytest.raises(
        UserError, match=r"no Inception weights at .*weights.pth. Put torch-fidelity's weights-inception"
    ):
        fit_feature_extractor(store, parameters).read()
    path.write_bytes(b"something else")
    with pytest.raises(
        UserError, match=r"weights.pth is not weights-inception.*its SHA-256 begins with \w{8}, not 6726"
    ):
        fit_feature_extractor(store, parameters).read()


def test_inception_weights_that_cannot_be_downloaded_are_an_error(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"could not be downloaded \(no route to host\). Copy weights-inception"):
        fit_feature_extractor(store, changed(EVALUATION, extractor="inception")).read()


@pytest.mark.slow
def test_inception_accepts_grey_and_colour_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights, since the published ones cannot be part of the tests."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity  # noqa: PLC0415

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    network = fidelity.FeatureExtractorInceptionV3("inception", ["2048"])
    monkeypatch.undo()
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(extractors, "INCEPTION_SHA256", "")
    parameters = changed(EVALUATION, extractor="inception", inception_weights=str(path))
    dataset = FeatureExtractorDataset(filepath=str(tmp_path / "extractor"))
    for channels in (1, 3):
        store = make_store(3, channels=channels)
        dataset.save(fit_feature_extractor(store, parameters))
        features, logits = dataset.load()(store.images)
        assert (features.shape, logits.shape) == ((3, 2048), (3, 1008))
        assert features.std() > 0


def test_the_loss_by_timestep_is_finite_and_repeatable(model: TrainedModel, store: ImageStore) -> None:
    rows = measure_loss_by_timestep(model, store, EVALUATION)
    assert [row["timestep"] for row in rows] == [12, 37, 62, 87]
    assert all(0 < row["validation_loss"] < 100 for row in rows)
    assert rows == measure_loss_by_timestep(model, store, EVALUATION)
    assert plot_loss_by_timestep(rows).data[0].x == (12, 37, 62, 87)


def test_curves_need_at_least_one_row() -> None:
    figure = plot_training([ROW])
    assert [trace.name for trace in figure.data] == ["training loss", "validation loss", "learning rate"]
    assert all(trace.mode == "lines+markers" for trace in figure.data)  # a line alone would show nothing
    with pytest.raises(UserError, match="no row yet"):
        plot_training([])


def test_the_animation_has_only_the_previews_of_this_run(model: TrainedModel) -> None:
    def preview(shade: int) -> Any:
        return lambda: Image.new("RGB", (60, 20), (shade, shade, shade))

    previews = {f"{model.run_id}/images_seen_{seen:010d}": preview(seen) for seen in range(0, 90, 10)}
    strip, animation = film_training(previews | {"other/images_seen_0000000001": preview(255)}, model, REPORTING)
    assert [frame.getpixel((100, 10))[0] for frame in animation.images] == [0, 20, 50, 80]
    assert strip.height == 4 * 24 + 4
    assert len(film_training({}, model, REPORTING)[1].images) == 1


def test_an_animation_is_saved(tmp_path: Path) -> None:
    dataset = AnimationDataset(filepath=str(tmp_path / "film.gif"))
    dataset.save(Frames([Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "white")]))
    assert [frame.getpixel((0, 0)) for frame in dataset.load().images] == [(255, 0, 0), (0, 0, 255), (255, 255, 255)]
    assert dataset.preview().startswith("R0lGOD")  # base64 of a GIF's first bytes


def test_a_folder_without_figures_loads_as_empty(tmp_path: Path) -> None:
    dataset = FigureFolderDataset(
        path=str(tmp_path), dataset="ddpm_kedro.datasets.figure.FigureDataset", filename_suffix=".png"
    )
    assert dataset.load() == {}
    dataset.save({"a/b": Image.new("RGB", (2, 2))})
    assert list(dataset.load()) == ["a/b"]
    dataset.save({"a/c": Image.new("RGB", (3, 3))})
    os.utime(tmp_path / "a/b.png", (1, 1))
    newest = FigureDataset(filepath=str(tmp_path / "a/c.png")).preview()
    assert dataset.preview() == newest


def test_the_trajectory_ends_in_the_images(model: TrainedModel) -> None:
    grid = np.asarray(draw_trajectory(model, REPORTING))
    assert grid.shape == (2 * 2 * 60 + 4, 76 + 3 * 60 + 4, 3)


def report(
    model: TrainedModel,
    samples: Samples,
    store: ImageStore,
    history: Any = (ROW,),
    metrics: Metrics | None = None,
) -> str:
    evaluated, nearest = evaluate(samples, store)
    image = Image.new("RGB", (60, 60), "white")
    losses = plot_loss_by_timestep(measure_loss_by_timestep(model, store, EVALUATION))
    return write_report(
        model,
        metrics or evaluated,
        {"training": {"images": 40}, "raw": {"source": "folder", "name": "cats & dogs"}},
        list(history),
        plot_training(list(history)),
        losses,
        image,
        nearest,
        image,
        Frames([image]),
        image,
        image,
    )


def test_the_report_describes_images_model_and_samples(
    model: TrainedModel, samples: Samples, store: ImageStore
) -> None:
    page = report(model, samples, store)
    for words in (
        "40 images of 8×8 pixels, grey, 3 classes",
        "cosine schedule, predicts v",
        "8 network evaluations",
    ):
        assert words in page
    assert 'src="http' not in page
    assert "another training run" not in page
    assert json.dumps(MODEL.width) in page


def test_the_report_begins_with_the_verdicts(model: TrainedModel, samples: Samples, store: ImageStore) -> None:
    history = [ROW | {"images_seen": 2.0 * n, "validation_loss": 1 / n} for n in range(1, 9)]
    metrics, _ = evaluate(samples, store)
    metrics = replace(metrics, verdict="far from <real> images", warnings=("The classifier is <weak>.",))
    page = report(model, samples, store, history, metrics)
    beginning, _, rest = page.partition("<h2>Samples</h2>")
    for words in (
        "<h1>cats &amp; dogs</h1>",
        "<strong>Samples:</strong> far from &lt;real&gt; images.",
        "0.4 passes over 40 training images. The validation loss was still falling: 0.2500 at 8 images, now 0.1250.",
        "To train longer, add --params training.num_images=",
        '<p class="note">The classifier is &lt;weak&gt;.</p>',
    ):
        assert words in beginning
    for score in metrics.scores:
        name = score.name.partition("(")[0]
        assert f"<dt>{name}</dt><dd>{escape(EXPLANATIONS[name])}</dd>" in rest


def test_a_history_of_another_training_gives_no_verdict(
    model: TrainedModel, samples: Samples, store: ImageStore
) -> None:
    history = [ROW | {"images_seen": 3.0 * n, "validation_loss": 1 / n} for n in range(1, 9)]
    assert "passes over" not in report(model, samples, store, history)


def test_class_names_with_html_are_escaped(model: TrainedModel, samples: Samples, store: ImageStore) -> None:
    names = ("<script>alert(1)</script>", "a & b", "猫<b>")
    page = report(replace(model, record=replace(model.record, class_names=names)), samples, store)
    assert "#2 猫&lt;b&gt;" in page
    assert "猫<b>" not in page
    groups = {**model.made_by.parameters, "dataset": {"source": names[0]}}
    made_by = replace(model.made_by, parameters=groups)
    page = report(replace(model, record=replace(model.record, made_by=made_by)), samples, store)
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page
    assert names[0] not in page


def test_curves_of_another_training_run_are_noted(model: TrainedModel, samples: Samples, store: ImageStore) -> None:
    assert "8 images, but the model has seen 16" in report(model, samples, store, [ROW | {"images_seen": 8.0}])
