"""A stored dataset that was made with other parameters or inputs is reported once, with the changes."""

import json

import pytest

from ddpm_kedro.hooks import staleness
from tests.conftest import Project

SAMPLING = ("--pipelines", "sampling")


def warned(project: Project, caplog: pytest.LogCaptureFixture, *arguments: str) -> list[str]:
    caplog.clear()
    result = project.kedro_run(*arguments)
    assert result.exit_code == 0, result.output
    return [record.message for record in caplog.records if record.name == staleness.__name__]


def fingerprint(project: Project, part: str) -> str:
    found: str = json.loads((project.data / "08_reporting/ingestion_report.json").read_text())[part]["fingerprint"]
    return found


def test_datasets_of_the_same_parameters_are_not_reported(finished: Project, caplog: pytest.LogCaptureFixture) -> None:
    project = finished
    assert warned(project, caplog) == []
    no_effect = "sampling.num_images=4,sampling.batch_size=2,training.report_interval=8,training.device=auto"
    assert warned(project, caplog, *SAMPLING, "--params", no_effect) == []


def test_parameters_of_an_earlier_command_are_not_reported(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    earlier = "training.num_images=32,optimizer.lr=1e-4,images.seed=5,sampling.seed=3,use.augmentation=flips"
    assert project.kedro_run("--params", earlier).exit_code == 0
    for pipeline in ("sampling", "evaluation", "reporting"):
        assert warned(project, caplog, "--pipelines", pipeline) == []
    [message] = warned(project, caplog, *SAMPLING, "--params", "training.num_images=96")
    assert message.startswith("model on disk was made with other parameters or inputs: training.num_images: 32 → 96.")
    [message] = warned(project, caplog, *SAMPLING, "--params", "use.augmentation=none")
    assert "augmentation.horizontal_flip: True → False" in message


def test_a_model_of_other_parameters_is_reported(finished: Project, caplog: pytest.LogCaptureFixture) -> None:
    [message] = warned(finished, caplog, *SAMPLING, "--params", "optimizer.lr=1e-4,training.seed=3")
    assert "model on disk was made with other parameters or inputs" in message
    assert "optimizer.lr: 0.003 → 0.0001; training.seed: 0 → 3." in message


def test_a_model_of_other_images_is_reported(finished: Project, caplog: pytest.LogCaptureFixture) -> None:
    project = finished
    before = fingerprint(project, "training")
    assert project.kedro_run("--pipelines", "data_ingestion", "--params", "images.seed=1").exit_code == 0
    [message] = warned(project, caplog, *SAMPLING)
    assert f"training_images: {before} → {fingerprint(project, 'training')}." in message


def test_images_of_other_parameters_are_reported_once(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    assert project.kedro_run("--pipelines", "data_ingestion").exit_code == 0
    [message] = warned(project, caplog, "--pipelines", "model_training", "--params", "use.dataset=svhn,images.seed=1")
    assert "training_images on disk" in message
    assert "dataset.source: mnist5k → svhn; images.seed: 0 → 1." in message


def test_samples_of_another_seed_or_another_model_are_reported(
    finished: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project = finished
    rendering = ("--nodes", "sampling.render_samples")
    assert warned(project, caplog, *rendering) == []
    [message] = warned(project, caplog, *rendering, "--params", "sampling.seed=9")
    assert "samples on disk" in message
    assert "sampling.seed: 0 → 9." in message
    before = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    assert project.kedro_run("--pipelines", "model_training", "--params", "training.seed=4").exit_code == 0
    after = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    [message] = warned(project, caplog, *rendering)
    assert f"model: {before} → {after}." in message
