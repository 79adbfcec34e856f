"""Two processes that start at the same time in one data folder: one runs, the other names the process that runs.

``ROUNDS=20 pytest tests/integration/test_two_processes.py`` repeats each pair 20 times.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from ddpm_kedro.datasets.samples import SamplesDataset
from tests.conftest import Project
from tests.integration.test_distributed import history
from tests.integration.test_whole_job import TINY, digest, ok
from tests.processes import Process
from tests.test_data_lock import KINDS

ROUNDS = int(os.environ.get("ROUNDS", "1"))
TRAIN = "run --pipelines model_training --params"
OTHER = f"{TRAIN} {TINY},training.seed=1"
SAMPLE = f"run --pipelines sampling --params {TINY},sampling.seed="
INGEST = "run --pipelines data_ingestion --params use.dataset=array,dataset.path="
LONG = f"{TRAIN} training.num_images=80000,training.report_interval=800,training.preview_images=0"

pytestmark = pytest.mark.slow


def start(project: Project, command: str) -> Process:
    return Process(project.folder, "kedro", *command.split(), "--env", "smoke", environment={"COLUMNS": "400"})


def start_together(project: Project, *commands: str) -> list[int]:
    """Run commands at the same time; return the indices of the successful ones, which refused all others."""
    processes = [start(project, command) for command in commands]
    outputs = [process.communicate() for process in processes]
    done = [number for number, process in enumerate(processes) if process.returncode == 0]
    assert done, outputs
    for number, text in enumerate(outputs):
        if number not in done:
            assert "Traceback" not in text
            assert any(f"is in use by process {processes[each].pid} on " in text for each in done), text
    assert not (project.data / ".lock.json").exists()
    return done


def model_id(project: Project) -> str:
    run_id: str = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    return run_id


@pytest.mark.parametrize("_", range(ROUNDS))
def test_two_trainings_at_once_do_not_mix_their_files(_: int, project: Project) -> None:
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    ids = []
    for command in (f"{TRAIN} {TINY}", OTHER):  # the results of each alone
        alone = start(project, command)
        assert alone.wait() == 0
        ids.append(model_id(project))
    alone_kept = [digest(project.data / "runs" / run_id / "model") for run_id in ids]
    for name in ("runs", "06_models"):
        (project.data / name).rename(project.folder / name)
    done = start_together(project, f"{TRAIN} {TINY}", OTHER)
    assert {path.parent.name for path in project.data.glob("runs/*/parameters.json")} == {ids[each] for each in done}
    for each in done:
        run = project.data / "runs" / ids[each]
        assert digest(run / "model") == alone_kept[each]
        assert json.loads((run / "parameters.json").read_text())["training"]["seed"] == each
        assert len((run / "training_history.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("_", range(ROUNDS))
def test_a_training_and_a_sampling_at_once_leave_samples_of_one_model(_: int, finished: Project) -> None:
    project = finished
    first = model_id(project)
    done = start_together(project, OTHER, f"{SAMPLE}7,training.num_images=64,training.report_interval=32")
    samples = SamplesDataset(filepath=str(project.data / "07_model_output/samples.npz")).load()
    assert samples.made_by.inputs["model"] in {first, model_id(project)}
    assert samples.made_by.parameters["sampling"]["seed"] == (7 if 1 in done else 0)
    for path in project.data.glob("runs/*/parameters.json"):
        config = json.loads((path.parent / "model/config.json").read_text())
        assert config["parameters"]["training"]["seed"] == json.loads(path.read_text())["training"]["seed"]


@pytest.mark.parametrize("_", range(ROUNDS))
def test_two_ingestions_at_once_leave_stores_of_one_dataset(_: int, project: Project) -> None:
    values = {"red": 10, "blue": 200}
    for name, value in values.items():
        np.savez(project.folder / f"{name}.npz", images=np.full((400, 16, 16), value, np.uint8))
    for _round in range(2):
        done = start_together(project, *(f"{INGEST}{name}.npz" for name in values))
        stores = [project.data / f"05_model_input/{name}_images" for name in ("training", "holdout")]
        found = {int(value) for store in stores for path in store.glob("0*.npy") for value in np.unique(np.load(path))}
        assert len(found) == 1
        assert found <= {[*values.values()][each] for each in done}


def test_a_training_refuses_other_commands_until_it_is_killed(finished: Project) -> None:
    project = finished
    training = start(project, LONG)
    record = project.data / ".lock.json"
    while not record.exists():
        assert training.poll() is None
        time.sleep(0.05)
    try:
        for kind in KINDS.values():
            other = start(project, " ".join(kind))
            assert f"is in use by process {training.pid} on " in other.communicate()
            assert other.returncode == 1
        lists = start(project, "runs list")
        assert model_id(project) in lists.communicate()
    finally:
        training.kill()
        training.communicate()
    sampling = start(project, f"{SAMPLE}3,training.num_images=64,training.report_interval=32")
    assert sampling.wait() == 0
    assert not record.exists()
    assert not Path(project.data / "05_model_input/.training_images.new").exists()


def test_a_waiting_run_starts_after_the_run_before(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project = finished
    monkeypatch.setenv("DDPM_KEDRO_WAIT", "3600")
    assert start_together(project, OTHER, OTHER.replace("seed=1", "seed=2")) == [0, 1]
    assert len(list(project.data.glob("runs/*/parameters.json"))) == 3
    assert [row["images_seen"] for row in history(project)] == [8, 16]
