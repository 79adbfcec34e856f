"""One training in several processes that torchrun starts."""

import csv
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from threading import Thread

import pytest
import torch

import ddpm_kedro.__main__
from tests.conftest import Project
from tests.integration.test_whole_job import ok
from tests.processes import Process, run

ONE_HOST = ("--standalone", "--nproc-per-node", "2")
FORKED = ("--start-method", "fork", "--run-path", ddpm_kedro.__main__.__file__)  # ranks need not import torch again
TRAINING = ("--env", "smoke", "--pipelines", "model_training", "--params")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def params(**values: object) -> str:
    chosen = {"precision": "fp32", "device": "cpu", "preview_images": 0, "process_timeout": 60} | values
    return ",".join(f"training.{name}={value}" for name, value in chosen.items())


def torchrun(project: Project, *words: str) -> Process:
    return Process(project.folder, "torch.distributed.run", *words, environment=ENVIRONMENT)


def train_on_two_ranks(project: Project, parameters: str, *options: str) -> Process:
    return torchrun(project, *ONE_HOST, *options, *FORKED, *TRAINING, parameters)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def read_into(logs: list[str], number: int, process: Process) -> None:
    for line in process.stdout:
        logs[number] += line


def history(project: Project) -> list[dict[str, float]]:
    with (project.data / "08_reporting/training_history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def final_weights(project: Project) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    return load_file(project.data / "06_models/model/model.safetensors")


@pytest.fixture
def ingested(project: Project) -> Project:
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    return project


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(ingested: Project, tmp_path: Path) -> None:
    """Compare 20 steps, one row of the history each. Rank 1 writes nothing, and both ranks sample previews."""
    short = params(num_images=160, report_interval=8, checkpoint_interval=160, preview_images=3, batch_size=8)
    process = train_on_two_ranks(ingested, short)
    output = process.communicate()
    assert process.returncode == 0, output
    assert output.count("160 of 160 images") == 1
    assert "Distributed training in 2 processes." in output
    assert "WARNING" not in output
    again = train_on_two_ranks(ingested, short)
    output = again.communicate()
    assert again.returncode == 0, output
    assert "Everything is up to date" in output
    shared, weights = history(ingested), final_weights(ingested)
    previews = {path.name for path in (ingested.data / "08_reporting/training_previews").rglob("*.png")}
    ingested.data.joinpath("06_models").rename(tmp_path / "models")
    ok(ingested.kedro_run("--pipelines", "model_training", "--params", short))
    alone = history(ingested)
    assert len(alone) == len(shared) == len(previews) == 20
    for ours, theirs in zip(shared, alone, strict=True):
        for figure in ("loss", "validation_loss", "gradient_norm"):
            assert ours[figure] == pytest.approx(theirs[figure], abs=1e-5, rel=1e-5)
    for name, tensor in final_weights(ingested).items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_stop_ends_all_ranks_at_one_step_and_one_process_resumes(ingested: Project) -> None:
    """Stop one of two hosts, each with its own torchrun."""
    long = params(num_images=8000, report_interval=80, checkpoint_interval=4000, accumulation_steps=2)
    meet = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}")
    words = (*meet, "--nproc-per-node", "1", *FORKED, *TRAINING, long)
    hosts = [torchrun(ingested, *words) for _ in range(2)]
    logs = ["", ""]
    readers = [Thread(target=read_into, args=(logs, number, host)) for number, host in enumerate(hosts)]
    for reader in readers:
        reader.start()
    while not any("80 of 8,000 images" in log for log in logs):
        assert all(host.poll() is None for host in hosts), logs
        time.sleep(0.05)
    hosts[0].send_signal(signal.SIGTERM)
    while "Stopped after" not in "".join(logs):
        assert any(host.poll() is None for host in hosts), logs
        time.sleep(0.05)
    hosts[1].send_signal(signal.SIGTERM)  # its torchrun would wait minutes for the other's
    assert all(host.wait() for host in hosts)
    for reader in readers:
        reader.join()
    rest = "".join(logs)
    [seen] = [int(found.replace(",", "")) for found in re.findall(r"Stopped after ([\d,]+) images", rest)]
    assert 80 <= seen < 8000
    result = ok(
        ingested.kedro_run("--pipelines", "model_training", "--params", f"{long},training.num_images={seen + 8}")
    )
    assert result.exception is None
    config = json.loads((ingested.data / "06_models/model/config.json").read_text())
    assert config["images_seen"] == seen + 8
    assert "continued_from" in config["inputs"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_ranks(ingested: Project) -> None:
    process = train_on_two_ranks(ingested, params(num_images=800) + ",optimizer.lr=1e30")
    output = process.communicate()
    assert process.returncode == 1, output
    assert "Error: The loss is inf in step 2, after 8 images" in output
    assert (ingested.data / "08_reporting/diverged_batch.safetensors").is_file()


@pytest.mark.slow
def test_a_killed_rank_is_restarted_from_the_checkpoint(ingested: Project) -> None:
    long = params(num_images=800, report_interval=80, checkpoint_interval=80)
    process = train_on_two_ranks(ingested, long, "--max-restarts", "1")
    output, killed = [], False
    for line in process.stdout:
        output.append(line)
        if "400 of 800 images" in line and not killed:
            killed = True
            os.kill(last_rank_of(process), signal.SIGKILL)
    text = "".join(output)
    assert process.wait() == 0, text
    assert killed
    assert re.search(r"resumes after \d+ images", text), text
    assert [row["images_seen"] for row in history(ingested)] == list(range(80, 801, 80))


def last_rank_of(agent: Process) -> int:
    """Return the process id of the rank that torchrun started last."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert len(children) == 2
    return max(map(int, children))


@pytest.mark.slow
def test_torchrun_refuses_pipelines_other_than_training(project: Project) -> None:
    process = torchrun(project, *ONE_HOST, "-m", "ddpm_kedro", "--env", "smoke")
    output = process.communicate()
    assert process.returncode
    assert output.count("torchrun is only for training: torchrun --nproc-per-node") == 1
    assert not (project.data / "05_model_input").exists()


def test_a_master_that_cannot_be_reached_is_named_within_the_timeout(ingested: Project) -> None:
    port = free_port()
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = run(ingested.folder, "ddpm_kedro", *TRAINING, params(process_timeout=2), environment=ENVIRONMENT | alone)
    assert done.returncode == 1
    assert f"did not join at 127.0.0.1:{port} within 0:00:02" in done.stdout
    assert "Traceback" not in done.stdout
