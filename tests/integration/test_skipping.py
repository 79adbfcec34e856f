"""A finished run that is repeated does no work; what has changed is made again, and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.trial import TRIAL
from tests.conftest import Project
from tests.integration.test_whole_job import TINY, digest, failed, ok

SAMPLED = {"sample_images", "render_samples"}
EVALUATED = {"evaluate_samples"}
UP_TO_DATE = "Everything is up to date;"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the nodes that ran, in order."""
    names: list[str] = []
    run = Node.run

    def record(self: Node, inputs: object = None) -> object:
        names.append(self.short_name)
        return run(self, inputs)

    monkeypatch.setattr(Node, "run", record)
    return names


def nodes_of(ran: list[str], project: Project, *arguments: str) -> set[str]:
    ran.clear()
    ok(project.kedro_run(*arguments))
    return {*ran}


def test_a_repeated_run_runs_no_node_and_names_the_results(
    finished: Project, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = digest(finished.data)
    caplog.set_level("INFO")
    assert nodes_of(ran, finished) == set()
    assert digest(finished.data) == before
    assert caplog.text.count(UP_TO_DATE) == 1
    for name in ("report.html", "samples.png", "06_models/model"):
        assert name in caplog.text
    assert not (finished.data / "wandb").exists()
    for pipeline in ("data_ingestion", "model_training", "sampling", "evaluation", "reporting"):
        assert nodes_of(ran, finished, "--pipelines", pipeline) == set()


def test_other_samples_are_sampled_evaluated_reported_and_kept(
    finished: Project, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    [run] = (finished.data / "runs").iterdir()
    seed = ("--params", "sampling.seed=5")
    assert nodes_of(ran, finished, *seed) == SAMPLED | EVALUATED | {"write_report"}
    assert json.loads((run / "parameters.json").read_text())["sampling"]["seed"] == 5
    for name in ("07_model_output/samples.npz", "08_reporting/metrics.json", "08_reporting/report.html"):
        assert (run / Path(name).name).read_bytes() == (finished.data / name).read_bytes()
    assert nodes_of(ran, finished, *seed) == set()
    (finished.data / "07_model_output/samples.png").unlink()
    assert nodes_of(ran, finished, *seed) == {"render_samples"}
    assert nodes_of(ran, finished, *seed) == set()
    assert "WARNING" not in caplog.text


def test_a_longer_training_is_trained_and_a_damaged_document_is_made_again(finished: Project, ran: list[str]) -> None:
    (finished.data / "08_reporting/metrics.json").write_text("{")
    assert nodes_of(ran, finished) == EVALUATED
    found = nodes_of(ran, finished, "--params", "training.num_images=72")
    assert {"train_model", "export_model", "write_report"} | SAMPLED | EVALUATED <= found
    assert not {"download_images", "prepare_images", "report_ingestion"} & found


def test_all_nodes_run_on_request_and_those_that_are_named(finished: Project, ran: list[str]) -> None:
    everything = nodes_of(ran, finished, "--params", "run.repeat=true")
    assert {"download_images", "train_model", "write_report"} <= everything
    assert nodes_of(ran, finished) == set()
    assert nodes_of(ran, finished, "--nodes", "sampling.sample_images") == {"sample_images"}
    assert nodes_of(ran, finished, "--pipelines", "sampling", "--params", "run.repeat=true") == SAMPLED


def test_changed_code_repeats_sampling_but_no_training(
    finished: Project, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.up_to_date.source_fingerprint", lambda _: "another version")
    found = nodes_of(ran, finished)
    assert SAMPLED | EVALUATED | {"write_report", "film_training"} <= found
    assert not {"prepare_images", "train_model", "export_model"} & found


def test_a_training_that_was_retired_is_trained_and_sampled_again(finished: Project, ran: list[str]) -> None:
    for path in (finished.data / "06_models").glob("*.pt"):
        path.unlink()
    assert {"train_model", "export_model"} | SAMPLED | EVALUATED <= nodes_of(ran, finished)


def test_a_run_that_ended_before_it_was_kept_is_kept_by_the_next(finished: Project, ran: list[str]) -> None:
    [run] = (finished.data / "runs").iterdir()
    kept = digest(run)
    shutil.rmtree(run)
    assert nodes_of(ran, finished) == set()
    assert digest(run).keys() == {name for name in kept if not name.startswith("checkpoints")}


def test_a_model_of_another_configuration_is_refused_although_the_samples_are_up_to_date(
    finished: Project, ran: list[str]
) -> None:
    message = failed(finished.kedro_run("--pipelines", "sampling", "--params", "model.width=16"))
    assert "model.width: 8 → 16" in message
    assert ran == []


def test_a_trial_of_a_sweep_trains_although_the_training_is_up_to_date(finished: Project, ran: list[str]) -> None:
    class Trial:
        def report(self, value: float, step: int) -> None: ...

        def should_prune(self) -> bool:
            return False

    with TRIAL.of(Trial()):  # type: ignore[arg-type]
        assert "train_model" in nodes_of(ran, finished)
        assert TRIAL.images_seen == 64


def test_changed_files_of_a_folder_are_noticed(project: Project, ran: list[str]) -> None:
    from tests.ingestion.test_image_files import folder_of  # noqa: PLC0415
    from tests.integration.test_your_images import FILES  # noqa: PLC0415

    folder = folder_of(project.folder / "pictures", FILES)
    ingestion = ("--pipelines", "data_ingestion")
    given = ("--params", "use.dataset=folder,dataset.path=pictures,images.size=16")
    assert "prepare_images" in nodes_of(ran, project, *ingestion, *given)
    assert nodes_of(ran, project, *ingestion) == set()
    os.utime(next(path for path in folder.rglob("*.png")), (1, 1))
    changed = next(path for path in folder.rglob("*.png"))
    shutil.copy(changed, changed.with_name("another.png"))
    assert {"download_images", "prepare_images"} <= nodes_of(ran, project, *ingestion)
    assert nodes_of(ran, project, *ingestion) == set()


def test_parameters_that_another_training_had_make_everything_again(project: Project, ran: list[str]) -> None:
    """Train, train with another seed, and return: the first training is found, and its samples are made again."""
    ok(project.kedro_run("--params", TINY))
    ok(project.kedro_run("--params", f"{TINY},training.seed=1"))
    found = nodes_of(ran, project, "--params", TINY)
    assert {"train_model", "export_model"} | SAMPLED | EVALUATED <= found
    assert "download_images" not in found
    assert nodes_of(ran, project, "--params", TINY) == set()
