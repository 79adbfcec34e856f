"""Tracking with W&B: what is logged, and that it never stops a run."""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import wandb

from ddpm_kedro.hooks import tracking, wandb_run
from ddpm_kedro.hooks.graceful_stop import GracefulStop
from ddpm_kedro.provenance import flatten
from tests.conftest import Project
from tests.hooks.wandb_file import OfflineRun
from tests.hooks.wandb_server import WandbServer, wandb_server

OFFLINE = "tracking.mode=offline"
VALUES = {"loss", "validation_loss", "learning_rate", "gradient_norm", "images_per_second"}
LOGGERS = {tracking.__name__, wandb_run.__name__}
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Remove the key and the settings of whoever runs the tests, and leave no run open."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    wandb.teardown()  # an earlier test of this process may have read the settings
    yield
    wandb.teardown()


@pytest.fixture
def project(project: Project, smoke_data: Path) -> Project:
    """A project whose images are ingested."""
    return project.adopt_images(smoke_data)


def run(project: Project, parameters: str = OFFLINE, pipelines: str = "model_training") -> OfflineRun:
    result = project.kedro_run("--pipelines", pipelines, "--params", parameters)
    assert result.exit_code == 0, result.output
    return OfflineRun(project.data / "wandb")


def run_until_samples(project: Project, parameters: str = OFFLINE) -> None:
    """Run beyond the training: trouble with W&B stops nothing that follows."""
    run(project, parameters, "model_training,sampling")
    assert (project.data / "07_model_output/samples.png").exists()


def history(project: Project) -> list[dict[str, float]]:
    rows = csv.DictReader(project.history().splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def points(tracked: OfflineRun) -> list[dict[str, float]]:
    """Return the rows with values, without figures."""
    rows = [row for row in tracked.rows if "loss" in row]
    return [{name: row[name] for name in ("images_seen", *VALUES)} for row in rows]


def test_everything_is_logged_at_its_number_of_images(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracked = run(project, pipelines="data_ingestion,model_training,sampling,evaluation")
    assert points(tracked) == [pytest.approx(row) for row in history(project)]
    assert len(points(tracked)) == 2
    steps = {row["images_seen"]: row["_step"] for row in tracked.rows}
    assert steps == {0: 0, 32: 32, 64: 64}
    pictures = {
        row["images_seen"]: {name.removesuffix("._type") for name in row if name.endswith("._type")}
        for row in tracked.rows
    }
    assert pictures[0] == {"augmentation_preview"}
    assert pictures[32] == {"training_previews"}
    assert pictures[64] == {"training_previews", "samples_grid", "nearest_neighbours"}
    assert set(tracked.artifacts) == {"parameters", "model"}
    assert (
        tracked.summary["KID(classifier)"]
        == json.loads((project.data / "08_reporting/metrics.json").read_text())["figures"][0]["value"]
    )
    assert tracked.artifacts["model"] == {"config.json", "model.safetensors"}
    assert Path(os.environ["WANDB_DATA_DIR"]) == project.data / "wandb"  # where artifacts wait for their upload
    written = [path for path in (project.data / "wandb").rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert not [path for path in written if path.suffix == ".py" or path.name == "diff.patch"]


def test_every_parameter_is_in_the_configuration(project: Project) -> None:
    tracked = run(project, f"{OFFLINE},use.optimizer=sgd,optimizer.momentum=0.8")
    assert tracked.config["optimizer.momentum"] == 0.8
    assert tracked.config["use.optimizer"] == "sgd"
    names = {name for name, _ in flatten(project.parameters(f"{OFFLINE},use.optimizer=sgd"))}
    assert names <= set(tracked.config)


def test_a_killed_run_resumes_without_missing_or_repeated_rows(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after a row that no checkpoint has: it is trained again, but logged once."""
    parameters = f"{OFFLINE},training.report_interval=16,training.checkpoint_interval=32"

    def kill(self: GracefulStop, dataset_name: str, data: Any) -> None:
        if dataset_name == "training_history" and len(project.history().splitlines()) == 1 + 3:
            raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(GracefulStop, "after_dataset_saved", tracking.hook_impl(kill))
        assert project.kedro_run("--pipelines", "model_training", "--params", parameters).exit_code == 137
    tracked = run(project, parameters)
    assert len(tracked.files) == 2
    assert len(tracked.ids) == 1
    assert [row["images_seen"] for row in points(tracked)] == [16, 32, 48, 64]
    names = VALUES - {"images_per_second"}
    again = [{name: row[name] for name in names} for row in history(project)]
    assert [{name: row[name] for name in names} for row in points(tracked)] == [pytest.approx(row) for row in again]


def test_auto_is_offline_without_a_key_and_a_finished_run_is_not_logged_again(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(run(project, "tracking.mode=auto").files) == 1
    assert not warnings(caplog)
    assert "wandb sync" in caplog.text
    assert len(run(project, "tracking.mode=auto").files) == 1


def test_disabled_writes_nothing(project: Project) -> None:
    run(project, "tracking.mode=disabled")
    assert not (project.data / "wandb").exists()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name in LOGGERS and record.levelno > 20]


def test_online_without_a_key_is_one_warning(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    assert len(points(run(project, "tracking.mode=online"))) == 2
    [warning] = warnings(caplog)
    assert "set WANDB_API_KEY" in warning


def test_a_server_that_does_not_answer_is_one_warning(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "ONLINE_TIMEOUT", 1.0)
    assert len(points(run(project, "tracking.mode=auto"))) == 2
    [warning] = warnings(caplog)
    assert "cannot be reached, or refuses the key" in warning
    assert KEY not in caplog.text


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Start a server that accepts everything."""
    with wandb_server() as running:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", running.address)
        yield running


def test_online_the_server_gets_every_row_and_not_the_key(project: Project, server: WandbServer) -> None:
    run(project, "tracking.mode=auto")
    [run_id] = {run for run, _ in server.lines}
    assert (project.data / "runs" / run_id).is_dir()
    received = [row for row in server.history(run_id) if "loss" in row]
    assert [{name: row[name] for name in ("images_seen", *VALUES)} for row in received] == [
        pytest.approx(row) for row in history(project)
    ]
    assert "optimizer.lr" in server.text
    assert KEY not in server.text


def test_a_silent_server_does_not_slow_a_training_and_delays_its_end_by_the_limit(
    project: Project, server: WandbServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_run, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setattr("wandb.apis.public.api.Api._HTTP_TIMEOUT", 1)  # of the request that logging a model makes
    log = wandb_run.WandbRun.log_history
    spent = []

    def fall_silent(self: wandb_run.WandbRun, rows: list[dict[str, float]]) -> None:
        server.deaf.set()
        start = time.perf_counter()
        with monkeypatch.context() as patch:
            patch.setattr("wandb.apis.public.api.Api._HTTP_TIMEOUT", 120)
            log(self, rows)
        spent.append(time.perf_counter() - start)

    monkeypatch.setattr(wandb_run.WandbRun, "log_history", fall_silent)
    start = time.perf_counter()
    run_until_samples(project, "tracking.mode=online")
    assert time.perf_counter() - start < 120  # the server never answers
    assert len(spent) == 2
    assert max(spent) < 30
    [warning] = warnings(caplog)
    assert "did not take everything within 1 s" in warning
    assert "wandb sync" in warning


def test_the_parts_of_a_run_are_joined_when_they_are_uploaded(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log shows the command to upload them."""

    def kill(self: GracefulStop, dataset_name: str, data: Any) -> None:
        if dataset_name == "checkpoint" and data:
            raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(GracefulStop, "after_dataset_saved", tracking.hook_impl(kill))
        assert project.kedro_run("--pipelines", "model_training", "--params", OFFLINE).exit_code == 137
    run(project)
    [command] = {line.split("with: ")[1] for line in caplog.messages if "wandb sync" in line}
    wandb.teardown()
    with wandb_server() as server:
        environment = os.environ | {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.address}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            command, shell=True, check=True, env=environment | {"PATH": path}, cwd=project.folder, timeout=300
        )
        [run_id] = {run for run, _ in server.lines}
        assert [row["images_seen"] for row in server.history(run_id) if "loss" in row] == [32, 64]
        steps = [row["_step"] for row in server.history(run_id)]
        assert steps == sorted(set(steps))


class Refusing(BaseHTTPRequestHandler):
    """A server that rejects every key."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def test_a_rejected_key_is_one_warning(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        assert len(points(run(project, "tracking.mode=online"))) == 2
        server.shutdown()
    [warning] = warnings(caplog)
    assert "cannot be reached, or refuses the key" in warning
    assert KEY not in caplog.text


def test_a_folder_that_cannot_be_created_is_one_warning(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    (project.data / "wandb").write_text("in the way")
    run_until_samples(project)
    [warning] = warnings(caplog)
    assert "The run is not tracked" in warning


def test_an_error_during_a_run_is_one_warning(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb.Run, "log", full)
    run_until_samples(project)
    [warning] = warnings(caplog)
    assert "No space left" in warning


def train(project: Project, parameters: str = OFFLINE) -> None:
    run(project, f"training.preview_images=0,{parameters}")


def steps(tracked: OfflineRun) -> dict[str, list[float]]:
    """Return the images seen of the rows of each W&B run."""
    found: dict[str, list[float]] = {}
    for path in tracked.files:
        part = OfflineRun.of([path])
        found.setdefault(part.ids.pop(), []).extend(row["images_seen"] for row in points(part))
    return found


@pytest.mark.parametrize("how", ["resume=never", "restart"])
def test_a_training_from_scratch_is_a_new_wandb_run_with_all_its_rows(how: str, project: Project) -> None:
    train(project)
    [first] = steps(OfflineRun(project.data / "wandb"))
    checkpoint = project.data / "06_models/checkpoint.pt"
    if how == "restart":
        checkpoint.unlink()
    train(project, f"{OFFLINE},training.resume=never" if how == "resume=never" else OFFLINE)
    assert steps(OfflineRun(project.data / "wandb")) == {first: [32, 64], f"{first}_2": [32, 64]}
    train(project, f"{OFFLINE},training.num_images=96,training.resume=require")  # resumes the second one
    assert steps(OfflineRun(project.data / "wandb")) == {first: [32, 64], f"{first}_2": [32, 64, 96]}


def test_variables_of_wandb_override_defaults(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for name, value in {"MODE": "offline", "PROJECT": "of-the-variable", "NAME": "named", "RUN_GROUP": "some"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(project, "tracking.mode=auto")
    [run] = [record.run for record in OfflineRun(project.data / "wandb").records if record.HasField("run")][:1]
    assert (run.project, run.display_name, run.run_group) == ("of-the-variable", "named", "some")


def test_parameters_override_variables_of_wandb(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MODE": "disabled", "PROJECT": "of-the-variable", "NAME": "named"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(project, f"{OFFLINE},tracking.project=given,tracking.name=mine")
    [run] = [record.run for record in OfflineRun(project.data / "wandb").records if record.HasField("run")][:1]
    assert (run.project, run.display_name) == ("given", "mine")


def test_wandb_mode_disabled_writes_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(project, "tracking.mode=auto")
    assert not (project.data / "wandb").exists()


def test_under_a_sweep_agent_the_upload_command_names_existing_files(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for name, value in {"SWEEP_ID": "sweep", "RUN_ID": "of-the-agent", "DIR": str(tmp_path / "of agent")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    (tmp_path / "of agent").mkdir()
    train(project)
    [command] = {line.split("with: ")[1] for line in caplog.messages if "wandb sync" in line}
    _, _, pattern = shlex.split(command)
    [part] = Path("/").glob(pattern[1:])
    assert OfflineRun(part.parent).ids == {"of-the-agent"}


def test_a_training_in_a_new_folder_is_a_new_wandb_run_on_the_server(
    project: Project, server: WandbServer, tmp_path: Path
) -> None:
    """A server drops rows with fewer images than the last one of a run."""
    for folder in ("one", "two"):
        train(project, "tracking.mode=online")
        for name in ("06_models", "08_reporting", "runs", "wandb"):
            (project.data / name).rename(tmp_path / f"{folder}_{name}")
    first, second = sorted({run for run, _ in server.lines})
    assert second == f"{first}_2"
    for run_id in (first, second):
        assert [row["images_seen"] for row in server.history(run_id) if "loss" in row] == [32, 64]
