"""A second data folder that reads the images of the first one while that one is in use."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, Project
from tests.integration.test_whole_job import TINY, digest, failed, ok
from tests.processes import run
from tests.test_data_lock import held

INGESTION = ("ddpm_kedro", "--env", "smoke", "--pipelines", "data_ingestion", "--params")
PIPELINES = ("--pipelines", "model_training,sampling,evaluation,reporting")


@pytest.fixture
def second(project: Project) -> Path:
    """The data folder of the environment that the page describes; the smoke environment has ingested its images."""
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    shutil.copytree(project.folder / "conf/smoke", project.folder / "conf/second")
    page = (ROOT / "docs/configuration.md").read_text()
    [block] = [part for part in page.split("```") if part.startswith("yaml\n") and "images_root" in part]
    block = block.removeprefix("yaml\n").replace("images_root: data ", "images_root: data/smoke ")
    (project.folder / "conf/second/globals.yml").write_text(block)
    return project.folder / "data/second"


def test_a_second_run_trains_on_the_images_of_the_first(second: Path, project: Project) -> None:
    before = digest(project.data / "05_model_input")
    with held(project.data):
        failed(project.kedro_run(), "is in use by process", "Two runs at once")
        ok(project.kedro_run("--params", TINY, env="second"))
    assert digest(project.data / "05_model_input") == before
    assert not (project.data / "06_models").exists()
    run_id = json.loads((second / "06_models/model/config.json").read_text())["run_id"]
    assert (second / "runs" / run_id / "metrics.json").exists()
    assert not (second / "05_model_input/training_images").exists()


def test_a_second_run_uses_the_parameters_chosen_for_the_images_of_the_first(second: Path, project: Project) -> None:
    np.savez(
        project.folder / "mine.npz", images=np.random.default_rng(0).integers(0, 255, (60, 16, 16)).astype(np.uint8)
    )
    own = "use.dataset=array,dataset.path=mine.npz"
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", own))
    assert project.parameters(env="second")["use"] == project.parameters()["use"]
    assert project.parameters(env="second")["use"]["dataset"] == "mine.npz"


def test_a_second_run_that_would_store_other_images_is_refused(second: Path, project: Project) -> None:
    before = digest(project.data / "05_model_input")
    ok(project.kedro_run("--pipelines", "data_ingestion", env="second"))
    message = failed(project.kedro_run("--pipelines", "data_ingestion", "--params", "images.seed=1", env="second"))
    assert "belongs to another data folder (images_root in globals.yml)" in message
    assert digest(project.data / "05_model_input") == before


def test_a_run_fails_if_its_images_are_replaced_meanwhile(
    second: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest other images in the first folder between the training and the evaluation in the second."""
    from ddpm_kedro.datasets.samples import SamplesDataset  # noqa: PLC0415

    save = SamplesDataset.save

    def ingest_first(self: SamplesDataset, data: object) -> None:
        monkeypatch.setattr(SamplesDataset, "save", save)
        run(project.folder, *INGESTION, "images.seed=1").check_returncode()
        save(self, data)  # type: ignore[arg-type]

    monkeypatch.setattr(SamplesDataset, "save", ingest_first)
    result = project.kedro_run(*PIPELINES, "--params", TINY, env="second")
    failed(result, "training_images on disk was replaced while this run used it")
    assert not list((second / "runs").glob("*/parameters.json"))
