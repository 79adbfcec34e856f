"""Whole runs of the ``smoke`` environment, as a user starts them."""

import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from kedro.framework.startup import bootstrap_project
from kedro.inspection import get_project_snapshot
from PIL import Image

from ddpm_kedro.datasets.tensors import TensorsDataset
from ddpm_kedro.hardware import AVAILABLE
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.pipeline_registry import MAIN_JOB
from ddpm_kedro.up_to_date import FILE
from tests.conftest import ROOT, Project
from tests.processes import Process, run

TINY = "training.num_images=16,training.report_interval=8,training.preview_images=0,sampling.num_images=10"
TO_SAMPLES = ("--pipelines", "data_ingestion,model_training,sampling")


def digest(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, without the log of the last run."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("run.log")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def results(project: Project) -> dict[str, bytes]:
    """Return the files of the model and the samples, without durations."""
    found = digest(project.data / "06_models/model") | digest(project.data / "07_model_output")
    return {name: content for name, content in found.items() if name != "sampling_report.json"}


def ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def failed(result: Result, *words: str) -> str:
    """Check that a run failed with one message for the user, and return it."""
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    *_, message = result.output.split("Error: ")
    for word in words:
        assert word in message
    return message


@pytest.fixture(scope="module")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of one run of TINY; to be copied, not changed."""
    made = Project(tmp_path_factory.mktemp("tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        bootstrap_project(made.folder)
        ok(made.kedro_run("--params", TINY))
    return made.data


@pytest.fixture
def trained(project: Project, tiny_data: Path) -> Project:
    """A project in which a run of TINY has finished."""
    return project.adopt(tiny_data)


def test_a_run_makes_model_samples_and_archive_and_the_second_run_changes_nothing(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    ok(project.kedro_run())
    config = json.loads((project.data / "06_models/model/config.json").read_text())
    assert config["images_seen"] == 64
    assert config["class_names"] == list("0123456789")
    with np.load(project.data / "07_model_output/samples.npz") as arrays:
        assert arrays["arr_0"].shape == (20, 28, 28, 1)
        assert arrays["arr_1"].tolist() == list(range(10)) * 2
        images = arrays["arr_0"]
    with Image.open(project.data / "07_model_output/samples.png") as grid:
        assert grid.width == 10 * 60 + 4
    files = sorted((project.data / "07_model_output/samples").glob("*.png"))
    assert [file.name for file in files[:2]] == ["00_0.png", "01_1.png"]
    assert np.array_equal(np.asarray(Image.open(files[7])), images[7, :, :, 0])
    assert len(project.history().splitlines()) == 3
    run = project.data / "runs" / config["run_id"]
    names = [
        "checkpoints",  # before the last
        "metrics.json",
        "model",
        "nearest_neighbours.png",
        "parameters.json",
        "report.html",
        "run.log",
        "samples.npz",
        "samples.png",
        "sampling_report.json",
        "training_history.csv",
    ]
    assert sorted(os.listdir(run)) == names
    assert json.loads((run / "parameters.json").read_text())["training"]["num_images"] == 64

    def untimed() -> dict[str, bytes]:
        timed = ("metrics.json", "report.html", "sampling_report.json")
        return {name: content for name, content in digest(project.data).items() if not name.endswith(timed)}

    before = untimed()
    caplog.set_level("INFO")
    caplog.clear()
    ok(project.kedro_run())
    assert "Everything is up to date;" in caplog.text
    assert untimed() == before


@pytest.mark.slow
def test_thread_runner_and_sequential_runner_write_equal_bytes(project: Project) -> None:
    """Train the network, with dropout, and the feature extractor at the same time."""
    options = "model.dropout=0.2,training.activation_checkpointing=true,evaluation.fit_images=640"

    def made() -> dict[str, bytes]:
        extractor = digest(project.data / "06_models/feature_extractor")
        return results(project) | {f"extractor/{name}": content for name, content in extractor.items()}

    ok(project.kedro_run("--params", options))
    expected = made()
    shutil.rmtree(project.data)
    ok(project.kedro_run("--params", options, "--runner", "ThreadRunner"))
    assert made() == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runner", "ParallelRunner"), "ParallelRunner cannot run this project"),
        (("--async",), "--async cannot run this project"),
    ],
)
def test_unsupported_runners_are_refused_before_any_node(
    arguments: tuple[str, ...], words: str, project: Project
) -> None:
    failed(project.kedro_run(*arguments), words)
    assert not project.data.exists()


def test_the_log_does_not_recommend_async(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="kedro")
    ok(project.kedro_run("--nodes", "data_ingestion.download_images"))
    assert "Running node" in caplog.text
    assert "--async" not in caplog.text


def test_other_parameters_start_from_scratch_and_the_earlier_run_is_kept(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = json.loads((trained.data / "06_models/model/config.json").read_text())["run_id"]
    kept = digest(trained.data / "runs" / earlier)
    caplog.set_level("INFO")
    ok(trained.kedro_run(*TO_SAMPLES, "--params", f"{TINY},optimizer.lr=1e-3"))
    assert f"starts from scratch, because it differs from run {earlier}: optimizer.lr: 0.003 → 0.001" in caplog.text
    now = json.loads((trained.data / "06_models/model/config.json").read_text())["run_id"]
    assert now != earlier
    after = digest(trained.data / "runs" / earlier)
    assert kept.items() <= after.items()
    assert set(after) - set(kept) == {"checkpoint.pt", "best_checkpoint.pt"}


def test_the_parameters_of_an_earlier_run_restore_its_checkpoint(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    first = results(trained)
    ok(trained.kedro_run(*TO_SAMPLES, "--params", f"{TINY},training.seed=1"))
    other = json.loads((trained.data / "06_models/model/config.json").read_text())["run_id"]
    assert results(trained) != first
    caplog.clear()
    ok(trained.kedro_run(*TO_SAMPLES, "--params", TINY))
    assert "it resumes from its own checkpoint" in caplog.text
    assert "is already trained" in caplog.text
    assert results(trained) == first
    assert (trained.data / "runs" / other / "checkpoint.pt").exists()


def test_a_diverged_training_keeps_its_batch_and_its_last_checkpoint(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = f"{TINY},optimizer.lr=1e30,optimizer.max_grad_norm=1e30,optimizer.warmup_images=0"
    words = "The loss is", "in step 2, after 8 images", "The last checkpoint: 8 images"
    failed(project.kedro_run("--params", f"{wrong},training.checkpoint_interval=8"), *words)
    assert "The batch of that step is kept in" in caplog.text
    batch = TensorsDataset(filepath=str(project.data / "08_reporting/diverged_batch.safetensors")).load()
    assert int(batch["step"]) == 1
    assert batch["images"].shape == batch["noise"].shape == (8, 1, 28, 28)
    assert (project.data / "06_models/checkpoint.pt").exists()
    assert not (project.data / "06_models/model").exists()


def test_resume_never_trains_again_to_equal_bytes_and_keeps_the_first_checkpoint(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    first = results(trained)
    caplog.set_level("INFO")
    ok(trained.kedro_run(*TO_SAMPLES, "--params", f"{TINY},training.resume=never"))
    assert "already trained" not in caplog.text
    assert results(trained) == first
    assert len(list(trained.data.glob("runs/*/retired_1/checkpoint.pt"))) == 1


def test_trials_do_not_resume_from_each_other(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fake = SimpleNamespace(report=lambda *_: None, should_prune=lambda: False)
    for images in (16, 24, 32):
        caplog.clear()
        command = "--pipelines", "data_ingestion,model_training", "--params", f"{TINY},training.num_images={images}"
        with TRIAL.of(fake) if images < 32 else nullcontext():
            ok(project.kedro_run(*command))
        assert "trains on" in caplog.text
        assert ("continues run" in caplog.text) == (images == 32)


def test_two_runs_of_one_configuration_write_equal_bytes(project: Project, tmp_path: Path) -> None:
    ok(project.kedro_run(*TO_SAMPLES, "--params", TINY))
    first = results(project)
    project.data.rename(tmp_path / "elsewhere")
    ok(project.kedro_run(*TO_SAMPLES, "--params", TINY))
    assert results(project) == first


def test_sampling_alone_uses_the_exported_model_and_its_seed(trained: Project) -> None:
    before = digest(trained.data / "06_models")
    ok(trained.kedro_run("--pipelines", "sampling", "--params", "sampling.num_images=16,sampling.seed=7"))
    with np.load(trained.data / "07_model_output/samples.npz") as arrays:
        first = arrays["arr_0"]
    assert len(first) == 16
    assert len(list((trained.data / "07_model_output/samples").glob("*.png"))) == 16
    ok(
        trained.kedro_run(
            "--pipelines", "sampling", "--params", "sampling.num_images=2,sampling.seed=7,sampling.label=1"
        )
    )
    with np.load(trained.data / "07_model_output/samples.npz") as arrays:
        assert arrays["arr_1"].tolist() == [1, 1]
        assert np.array_equal(arrays["arr_0"][1], first[1])  # image 1 of seed 7 again, alone or among others
    assert digest(trained.data / "06_models") == before


class TestMistakes:
    @pytest.mark.parametrize(
        ("parameters", "words"),
        [
            ("training.batch_sise=4", ["'training.batch_sise'", "Did you mean 'batch_size'"]),
            ("optimizer.lr=-0.1", ["'optimizer.lr' = -0.1", "greater than 0"]),
            ("model.width=10", ["norm_groups = 4 does not divide 30"]),
            ("use.model=digit", ["use.model=digit", "Did you mean 'digits'"]),
            ("use.experiment=cifar", ["use.experiment=cifar", "Did you mean 'cifar10'"]),
            ("dataset.source=cifar-10", ["'cifar-10'", "Did you mean 'cifar10'"]),
            ("training.device=tpu", ["'training.device' = 'tpu'"]),
            ("training.batch_size=5000", ["training.batch_size = 5000 is more than the 4500 training images"]),
            ("sampling.label=cat", ["sampling.label = 'cat' is not a class of this model"]),
        ],
    )
    def test_wrong_parameters_are_named(self, parameters: str, words: list[str], project: Project) -> None:
        message = failed(project.kedro_run("--params", f"{TINY},{parameters}"), *words)
        assert len(message.strip().splitlines()) == 1

    def test_sampling_without_a_model_is_refused(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "sampling"), "No trained model in", "run `kedro run` first")

    def test_training_without_images_is_refused(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "model_training"), "No images in", "data_ingestion` first")

    def test_sampling_with_another_network_is_refused(self, trained: Project) -> None:
        before = digest(trained.data)
        message = failed(trained.kedro_run("--pipelines", "sampling", "--params", "model.width=16"))
        assert "made with another configuration: model.width: 8 → 16" in message
        assert digest(trained.data) == before

    def test_a_damaged_checkpoint_is_named_and_kept(self, trained: Project) -> None:
        path = trained.data / "06_models/checkpoint.pt"
        path.write_bytes(path.read_bytes()[:1000])
        before = digest(trained.data) | {FILE: b""}
        failed(trained.kedro_run("--params", TINY), "checkpoint.pt is damaged", "Move it away")
        assert digest(trained.data) | {FILE: b""} == before

    def test_an_unknown_pipeline_is_refused(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "samplin"), "Unknown pipeline 'samplin'", "Did you mean 'sampling'")

    def test_an_unknown_environment_is_refused(self, project: Project) -> None:
        failed(project.kedro_run(env="somke"), "conf/somke", "Check --env")

    def test_a_file_that_is_not_yaml_is_named(self, project: Project) -> None:
        (project.folder / "conf/smoke/parameters.yml").write_text("training: {")
        failed(project.kedro_run(), "conf/smoke/parameters.yml", "Check its indentation")

    def test_a_file_in_place_of_the_data_folder_is_named(self, project: Project) -> None:
        (project.folder / "data").write_text("a file stands where the folder should be")
        failed(project.kedro_run(), "data/smoke", "cannot be written")

    def test_a_data_folder_on_a_read_only_file_system_is_named(self, project: Project) -> None:
        (project.folder / "conf/smoke/globals.yml").write_text("data_root: /proc/data")  # not even root writes there
        failed(project.kedro_run(), "The data folder /proc/data cannot be written")

    def test_a_data_folder_of_another_user_is_named(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = os.open

        def forbidden(path: Any, *arguments: Any, **options: Any) -> int:
            if str(path).startswith(str(project.data)):
                raise PermissionError(13, "Permission denied")
            return opened(path, *arguments, **options)

        project.data.mkdir(parents=True)
        owner = project.data.stat().st_uid
        monkeypatch.setattr("ddpm_kedro.data_lock.os.open", forbidden)
        message = failed(project.kedro_run(), "cannot be written: Permission denied.")
        assert "belongs to user" not in message
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
        failed(project.kedro_run(), f"belongs to user {owner}, and this is user {owner + 1}", "--user", "chown")

    def test_a_configuration_without_its_base_is_named(self, project: Project) -> None:
        (project.folder / "conf/base").rename(project.folder / "conf/elsewhere")
        failed(project.kedro_run(), "conf/base", "conf/local, not over conf")

    def test_a_failed_download_is_named(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        from torchvision import datasets  # noqa: PLC0415

        monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/x.tar.gz")
        failed(project.kedro_run("--params", "use.dataset=cifar10"), "could not be downloaded", "Check the network")

    def test_a_bug_keeps_its_traceback(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr("ddpm_kedro.ingestion.small_sets.checksums", broken)
        result = project.kedro_run()
        assert isinstance(result.exception, ZeroDivisionError)


def stop_in_mid_training(project: Project, number: signal.Signals) -> tuple[str, ...]:
    """Start a run in a process of its own, send it a signal after the first report, and return its command."""
    parameters = "training.num_images=400,training.report_interval=80,training.preview_images=0"
    command = ("ddpm_kedro", "--env", "smoke", *TO_SAMPLES, "--params", parameters)
    process = Process(project.folder, *command)
    for line in process.stdout:
        if "80 of 400 images" in line:
            process.send_signal(number)
            break
    rest = process.communicate()
    assert process.returncode == 128 + number
    assert "the same command resumes from it" in rest
    assert "400 of 400 images" not in rest
    assert not (project.data / "06_models/model").exists()
    return command


@pytest.mark.slow
def test_a_run_stopped_by_sigterm_resumes_to_the_same_images(project: Project, tmp_path: Path) -> None:
    command = stop_in_mid_training(project, signal.SIGTERM)
    done = run(project.folder, *command)
    assert done.returncode == 0, done.stdout
    assert "resumes after" in done.stdout
    resumed = results(project)
    project.data.rename(tmp_path / "elsewhere")
    run(project.folder, *command).check_returncode()
    assert results(project) == resumed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_hangup_keep_a_checkpoint(number: signal.Signals, project: Project) -> None:
    stop_in_mid_training(project, number)
    assert (project.data / "06_models/checkpoint.pt").exists()


def test_a_hangup_that_nohup_ignores_is_ignored(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[Any] = []

    def record(*_: Any) -> None:
        handlers.extend(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP))

    monkeypatch.setattr("ddpm_kedro.ingestion.small_sets.checksums", record)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        project.kedro_run("--pipelines", "data_ingestion")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert handlers[1] is signal.SIG_IGN
    assert handlers[0] not in {signal.SIG_IGN, signal.SIG_DFL}


def test_a_second_signal_or_one_outside_training_ends_at_once(project: Project) -> None:
    from ddpm_kedro.hooks.graceful_stop import GracefulStop  # noqa: PLC0415

    guard = GracefulStop()
    with pytest.raises(SystemExit) as outside:
        guard._on_signal(signal.SIGTERM, None)
    assert outside.value.code == 143
    guard.training = True
    guard._on_signal(signal.SIGTERM, None)
    assert guard.stop.is_set()
    with pytest.raises(SystemExit):
        guard._on_signal(signal.SIGTERM, None)
    guard.after_dataset_saved("checkpoint", {})  # none was due: the stop has yet to be noticed
    with pytest.raises(SystemExit):
        guard.after_dataset_saved("checkpoint", SimpleNamespace(images_seen=8))


def test_one_line_of_the_log_says_why_no_gpu_is_used(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.hardware.cuda_of_driver", lambda: (12, 4))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for device, there in ((name, name == "cpu") for name in ("cpu", "cuda", "mps")):
        monkeypatch.setitem(AVAILABLE, device, lambda there=there: there)
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", TINY))
    assert "GPU" not in caplog.text  # nothing to compute
    for arguments in (TO_SAMPLES, ("--pipelines", "sampling")):
        caplog.clear()
        ok(project.kedro_run(*arguments, "--params", f"{TINY},run.repeat=true"))
        [line] = [record.message for record in caplog.records if "GPU" in record.message]
        assert "too old" in line
        assert line.endswith("The CPU computes.")
    caplog.clear()
    ok(project.kedro_run("--pipelines", "sampling", "--params", f"{TINY},sampling.device=cpu,run.repeat=true"))
    assert "GPU" not in caplog.text  # asked for the CPU
    cuda = f"{TINY},sampling.device=cuda,run.repeat=true"
    failed(project.kedro_run("--pipelines", "sampling", "--params", cuda), "too old")


def test_signal_handlers_are_restored_after_a_run(project: Project) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    failed(project.kedro_run("--params", "training.batch_size=5000"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_signal_handlers_are_restored_after_a_stop(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep runs again in the process: a guard that saved its own handler would call itself for ever."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ddpm_kedro.hooks.graceful_stop.Event", lambda: SimpleNamespace(is_set=lambda: True))
    assert project.kedro_run("--params", TINY).exit_code == 128
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_parameters_of_a_run_are_in_its_log(project: Project) -> None:
    def logged() -> dict[str, str]:
        lines = (project.data / "08_reporting/run.log").read_text().splitlines()
        groups = [line.partition("hooks.preflight: ")[2].partition(": ") for line in lines if "hooks.preflight" in line]
        return {name: values for name, _, values in groups}

    ok(project.kedro_run(*TO_SAMPLES, "--params", f"{TINY},use.optimizer=sgd,optimizer.lr=0.125"))
    assert "optimizer sgd" in logged()["use"]
    assert "lr 0.125, momentum 0.95" in logged()["optimizer"]
    ok(project.kedro_run("--pipelines", "sampling", "--params", f"{TINY},sampling.seed=1"))
    assert "num_images 10" in logged()["sampling"]
    assert "optimizer" not in logged()  # sampling does not use it


def test_a_training_archives_only_its_own_files(trained: Project) -> None:
    ok(trained.kedro_run("--pipelines", "model_training", "--params", f"{TINY},training.seed=1"))
    run_id = json.loads((trained.data / "06_models/model/config.json").read_text())["run_id"]
    kept = sorted(path.name for path in (trained.data / "runs" / run_id).iterdir())
    assert kept == ["model", "parameters.json", "run.log", "training_history.csv"]  # the samples are of the first run


def test_a_training_archives_no_metrics_of_samples_of_another_run(
    project: Project, smoke_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Evaluate the samples of the earlier run."""
    project.adopt(smoke_data)
    command = ("--pipelines", "model_training,evaluation,reporting", "--params", f"{TINY},training.seed=1")
    ok(project.kedro_run(*command))
    run_id = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    kept = sorted(path.name for path in (project.data / "runs" / run_id).iterdir() if path.suffix != ".pt")
    assert kept == ["model", "parameters.json", "run.log", "training_history.csv"]
    assert f"metrics is not kept: it was not made from the outputs of run {run_id}." in caplog.text


def test_archived_parameters_are_those_of_the_archived_files(project: Project) -> None:
    ok(project.kedro_run(*TO_SAMPLES, "--params", f"{TINY},sampling.seed=3"))
    again = f"{TINY},sampling.seed=4,training.preview_images=1,training.resume=never"
    ok(project.kedro_run("--pipelines", "model_training", "--params", again))
    [run] = (project.data / "runs").iterdir()
    parameters = json.loads((run / "parameters.json").read_text())
    assert parameters["sampling"]["seed"] == 3
    assert parameters["training"]["preview_images"] == 1


def test_a_run_whose_archive_fails_is_not_finished(
    project: Project, smoke_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, target: Path) -> None:
        if path.suffix == ".csv":
            raise OSError(28, "No space left on device", str(target))

    project.adopt(smoke_data)
    [run] = (project.data / "runs").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.hooks.archive.copy", fail)
        again = ("--pipelines", "model_training", "--params", "run.repeat=true")
        failed(project.kedro_run(*again), "No space left on device")
    assert not (run / "parameters.json").exists()
    ok(project.kedro_run("--pipelines", "model_training"))
    assert (run / "parameters.json").exists()


def test_a_finished_training_is_kept_while_its_repetition_is_killed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--pipelines", "model_training", "--params")
    other = f"{TINY},training.seed=1"
    ok(project.kedro_run("--pipelines", "data_ingestion,model_training", "--params", TINY))
    [run] = (project.data / "runs").iterdir()
    ok(project.kedro_run(*command, other))
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.hooks.graceful_stop.Event", lambda: SimpleNamespace(is_set=lambda: True))
        assert project.kedro_run(*command, f"{TINY},training.resume=never").exit_code == 128
    ok(project.kedro_run(*command, other))
    seen = {path.parent.name: torch.load(path)["images_seen"] for path in run.rglob("checkpoint.pt")}
    assert seen == {run.name: 8, "retired_1": 16}


def test_deterministic_algorithms_are_chosen_for_a_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for wanted in (True, False):
        parameters = f"{TINY},training.deterministic={str(wanted).lower()},run.repeat=true"
        ok(project.kedro_run(*TO_SAMPLES, "--params", parameters))
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_contract_of_pipelines_and_catalog() -> None:
    snapshot = get_project_snapshot(ROOT)
    nodes = {p.name: {node.name.rsplit(".", 1)[-1] for node in p.nodes} for p in snapshot.pipelines}
    assert nodes["data_ingestion"] == {"download_images", "prepare_images", "report_ingestion", "choose_parameters"}
    assert nodes["model_training"] == {
        "augment_images",
        "make_resume_plan",
        "train_model",
        "export_model",
        "export_to_diffusers",
    }
    assert nodes["sampling"] == {"sample_images", "render_samples"}
    assert nodes["evaluation"] == {"fit_feature_extractor", "evaluate_samples", "measure_loss_by_timestep"}
    assert nodes["reporting"] == {
        "plot_training",
        "plot_loss_by_timestep",
        "film_training",
        "draw_trajectory",
        "write_report",
    }
    assert nodes["__default__"] == {node for name in MAIN_JOB for node in nodes[name]}
    assert nodes["image_to_image"] == {"vary_images"}
    assert nodes["inpainting"] == {"fill_in"}
    assert nodes["interpolation"] == {"interpolate_seeds"}
    assert nodes["import_model"] == {"convert_model"}
