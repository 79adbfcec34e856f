"""What the report says above its figures."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ddpm_kedro.metrics.scores import Score
from ddpm_kedro.metrics.table import EXPLANATIONS, Metrics
from ddpm_kedro.models import RunRecord, TrainedModel, build_network
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.reporting.overview import curves_note, data_set_name, explanations, overview
from tests.conftest import DIFFUSION, MADE_BY, MODEL

HISTORY = [
    {"images_seen": 40.0, "images_per_second": 4.0, "validation_loss": 0.3},
    {"images_seen": 80.0, "images_per_second": 8.0, "validation_loss": 0.2},
]
INGESTION: dict[str, Any] = {
    "raw": {"source": "folder", "name": "cats"},
    "training": {"images": 40},
    "holdout": {"images": 5},
}
SAMPLING = {
    "num_images": 12,
    "seconds": 2.5,
    "num_inference_steps": 10,
    "sampler": "ddim",
    "guidance_scale": 1.5,
    "network_evaluations": 20,
    "device": "cuda, bf16 (bfloat16 is native here)",
    "date": "2026-11-28 20:25 UTC",
}
METRICS = Metrics(
    scores=[Score(f"{name}(classifier)", 0.5, 100, "lower") for name in ("KID", "FD", "precision", "recall")],
    copying={"verdict": "no sign of copying"},
    samples=SAMPLING,
    extractor="classifier",
    reference_images=400,
    made_by=MADE_BY,
)


@pytest.fixture
def model() -> TrainedModel:
    names = tuple(f"class {index}" for index in range(12))
    groups = {"model": MODEL.fingerprint_fields(), "diffusion": DIFFUSION.fingerprint_fields()}
    record = RunRecord(Provenance(groups, {}), (3, 8, 8), names)
    return TrainedModel(build_network(MODEL, 3, len(names)), record, images_seen=80, trained_on="cpu, fp32 (a reason)")


def test_the_overview_has_data_set_date_device_and_durations(model: TrainedModel) -> None:
    lines = overview(model, METRICS, INGESTION, HISTORY)
    names = ", ".join(f"class {index}" for index in range(10))
    assert lines["Run"] == model.run_id
    assert lines["Data set"] == (f"cats: 40 images of 8×8 pixels, colour, 12 classes ({names}, …); 5 holdout images")
    assert lines["Date"] == "2026-11-28 20:25 UTC"
    assert lines["Training"] == "80 images seen, 2 passes, 0:00:15 (h:mm:ss) on cpu, fp32 (a reason)"
    assert lines["Samples"].startswith(
        "12 in 2.5 s on cuda, bf16 (bfloat16 is native here): 10 steps of ddim, guidance"
    )


def test_what_earlier_versions_did_not_record_is_left_out(model: TrainedModel) -> None:
    known = {name: value for name, value in SAMPLING.items() if name not in {"date", "device"}}
    plain = replace(model, trained_on="", record=replace(model.record, class_names=()))
    lines = overview(plain, replace(METRICS, samples=known), {"training": {"images": 40}}, [])
    assert lines["Data set"] == "unknown: 40 images of 8×8 pixels, colour, no classes"
    assert lines["Training"] == "80 images seen, 2 passes"
    assert "Date" not in lines


@pytest.mark.parametrize(
    ("raw", "name"), [({"source": "mnist5k"}, "mnist5k"), ({"source": "archive", "name": "a.zip"}, "a.zip")]
)
def test_a_data_set_is_named_after_its_files_or_its_source(raw: dict[str, str], name: str) -> None:
    assert data_set_name({"raw": raw}) == name


def test_curves_that_end_elsewhere_are_explained(model: TrainedModel) -> None:
    assert curves_note(model, HISTORY) == ""
    best = replace(model, images_seen=40)
    assert curves_note(best, HISTORY) == (
        "The model is the checkpoint with the lowest validation loss: 40 images. The curves end at 80."
    )
    assert "another training run: they end at 80 images, but the model has seen 48" in curves_note(
        replace(model, images_seen=48), HISTORY
    )


def test_each_metric_of_the_table_is_explained_once() -> None:
    assert list(explanations(METRICS)) == ["KID", "FD", "precision", "recall"]
    twice = replace(METRICS, scores=[*METRICS.scores, Score("KID", 0.5, 100, "lower"), Score("new", 1.0, 1, "lower")])
    assert explanations(twice) == {name: EXPLANATIONS[name] for name in ("KID", "FD", "precision", "recall")}


def test_the_device_of_the_training_is_stored_with_the_model(model: TrainedModel) -> None:
    loaded = TrainedModel.from_config(model.config(), model.network.state_dict())
    assert loaded.trained_on == model.trained_on
    unknown = {name: value for name, value in model.config().items() if name != "trained_on"}
    assert TrainedModel.from_config(unknown, model.network.state_dict()).trained_on == ""
    torch.testing.assert_close(loaded.network.state_dict(), model.network.state_dict())
