"""One training in several processes, as torchrun starts them."""

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
AS_DOCUMENTED = ("-m", "ddpm_kedro")
FORKED = ("--start-method", "fork", "--run-path", ddpm_kedro.__main__.__file__)  # ranks need not import torch again
TRAINING = ("--env", "smoke", "--pipelines", "model_training", "--params")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def params(**values: object) -> str:
    chosen = {"precision": "fp32", "device": "cpu", "preview_images": 0, "process_timeout": 60} | values
    return ",".join(f"training.{name}={value}" for name, value in chosen.items())


def torchrun(project: Project, *words: str) -> Process:
    return Process(project.folder, "torch.distributed.run", *words, environment=ENVIRONMENT)


def train_on_two_ranks(project: Project, parameters: str, *options: str) -> Process:
    return torchrun(project, *ONE_HOST, *(options or FORKED), *TRAINING, parameters)


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
def test_two_processes_learn_what_one_learns(ingested: Project, tmp_path: Path) -> None:
    """20 steps, each a row of the history; the second rank writes nothing, previews come from both."""
    short = params(num_images=160, report_interval=8, checkpoint_interval=160, preview_images=3, batch_size=8)
    process = train_on_two_ranks(ingested, short)
    said = process.communicate()
    assert process.returncode == 0, said
    assert said.count("160 of 160 images") == 1
    assert "Distributed training in 2 processes." in said
    assert "WARNING" not in said
    again = train_on_two_ranks(ingested, short)
    said = again.communicate()
    assert again.returncode == 0, said
    assert "is already trained" in said
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
def test_a_stop_ends_all_at_one_step_and_any_number_goes_on(ingested: Project) -> None:
    """Of two hosts one is stopped: each has a torchrun of its own."""
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
def test_a_loss_that_is_no_number_ends_all(ingested: Project) -> None:
    process = train_on_two_ranks(ingested, params(num_images=800) + ",optimizer.lr=1e30")
    said = process.communicate()
    assert process.returncode == 1, said
    assert "Error: The loss is inf in step 2, after 8 images" in said
    assert (ingested.data / "08_reporting/diverged_batch.safetensors").is_file()


@pytest.mark.slow
def test_a_rank_that_dies_is_started_again_from_the_checkpoint(ingested: Project) -> None:
    long = params(num_images=800, report_interval=80, checkpoint_interval=80)
    process = train_on_two_ranks(ingested, long, "--max-restarts", "1", *AS_DOCUMENTED)
    said, killed = [], False
    for line in process.stdout:
        said.append(line)
        if "240 of 800 images" in line and not killed:
            killed = True
            os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    text = "".join(said)
    assert process.wait() == 0, text
    assert killed
    assert re.search(r"resumes after \d+ images", text), text
    assert [row["images_seen"] for row in history(ingested)] == list(range(80, 801, 80))


def rank_of(agent: int, rank: int) -> int:
    """The process id of a rank."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError("no such rank")


@pytest.mark.slow
def test_torchrun_is_for_training_alone(project: Project) -> None:
    process = torchrun(project, *ONE_HOST, *FORKED, "--env", "smoke")
    said = process.communicate()
    assert process.returncode
    assert said.count("torchrun is only for training: torchrun --nproc-per-node") == 1
    assert not (project.data / "05_model_input").exists()


def test_a_master_that_cannot_be_reached_is_named_within_the_timeout(ingested: Project) -> None:
    port = free_port()
    alone = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = run(ingested.folder, "ddpm_kedro", *TRAINING, params(process_timeout=2), environment=ENVIRONMENT | alone)
    assert done.returncode == 1
    assert f"did not join at 127.0.0.1:{port} within 0:00:02" in done.stdout
    assert "Traceback" not in done.stdout
