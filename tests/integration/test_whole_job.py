"""Whole runs of the ``smoke`` environment, as a person starts them."""

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
from kedro.inspection import get_project_snapshot
from PIL import Image

from ddpm_kedro.datasets.tensors import TensorsDataset
from ddpm_kedro.hardware import AVAILABLE
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.pipeline_registry import MAIN_JOB
from tests.conftest import ROOT, Project
from tests.processes import Process, run

TINY = "training.num_images=16,training.report_interval=8,training.preview_images=0,sampling.num_images=10"


def digest(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results(project: Project) -> dict[str, bytes]:
    """The model and the samples; not how long they took."""
    found = digest(project.data / "06_models/model") | digest(project.data / "07_model_output")
    return {name: content for name, content in found.items() if name != "sampling_report.json"}


def ok(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def failed(result: Result, *words: str) -> str:
    """The one message of a person's mistake."""
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    *_, message = result.output.split("Error: ")
    for word in words:
        assert word in message
    return message


def test_from_nothing_to_pictures_and_again(project: Project, caplog: pytest.LogCaptureFixture) -> None:
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
    assert "is already trained: 64 images seen" in caplog.text
    assert untimed() == before


@pytest.mark.slow
def test_threads_and_one_thread_make_equal_bytes(project: Project) -> None:
    """Weights with dropout, and the feature extractor, are made at the same time."""
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
def test_runners_that_cannot_run_this_are_refused_before_any_node(
    arguments: tuple[str, ...], words: str, project: Project
) -> None:
    failed(project.kedro_run(*arguments), words)
    assert not project.data.exists()


def test_the_log_does_not_recommend_what_is_refused(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ok(project.kedro_run("--nodes", "data_ingestion.download_images"))
    assert "Running node" in caplog.text
    assert "--async" not in caplog.text


def test_other_parameters_start_anew_and_lose_nothing(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    ok(project.kedro_run("--params", TINY))
    earlier = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    kept = digest(project.data / "runs" / earlier)
    caplog.set_level("INFO")
    ok(project.kedro_run("--params", f"{TINY},optimizer.lr=1e-3"))
    assert f"starts from scratch, because it differs from run {earlier}: optimizer.lr: 0.003 → 0.001" in caplog.text
    now = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    assert now != earlier
    after = digest(project.data / "runs" / earlier)
    assert kept.items() <= after.items()
    assert set(after) - set(kept) == {"checkpoint.pt", "best_checkpoint.pt"}


def test_going_back_to_an_earlier_run_takes_up_its_checkpoint(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    ok(project.kedro_run("--params", TINY))
    first = results(project)
    ok(project.kedro_run("--params", f"{TINY},training.seed=1"))
    other = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    assert results(project) != first
    caplog.clear()
    ok(project.kedro_run("--params", TINY))
    assert "it resumes from its own checkpoint" in caplog.text
    assert "is already trained" in caplog.text
    assert results(project) == first
    assert (project.data / "runs" / other / "checkpoint.pt").exists()


def test_a_training_that_goes_wrong_keeps_its_batch_and_its_last_checkpoint(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = f"{TINY},optimizer.lr=1e30,optimizer.max_grad_norm=1e30,optimizer.warmup_images=0"
    said = "The loss is", "in step 2, after 8 images", "The last checkpoint is of 8 images"
    failed(project.kedro_run("--params", f"{wrong},training.checkpoint_interval=8"), *said)
    assert "The batch of that step is kept in" in caplog.text
    batch = TensorsDataset(filepath=str(project.data / "08_reporting/diverged_batch.safetensors")).load()
    assert int(batch["step"]) == 1
    assert batch["images"].shape == batch["noise"].shape == (8, 1, 28, 28)
    assert (project.data / "06_models/checkpoint.pt").exists()
    assert not (project.data / "06_models/model").exists()


def test_the_same_training_once_more_ends_the_same_and_keeps_the_first(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    ok(project.kedro_run("--params", TINY))
    first = results(project)
    caplog.set_level("INFO")
    ok(project.kedro_run("--params", f"{TINY},training.resume=never"))
    assert "already trained" not in caplog.text
    assert results(project) == first
    assert len(list(project.data.glob("runs/*/retired_1/checkpoint.pt"))) == 1


def test_trials_do_not_go_on_from_each_other(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fake = SimpleNamespace(report=lambda *_: None, should_prune=lambda: False)
    for images, words in ((16, "starts"), (24, "starts"), (32, "continues run")):
        caplog.clear()
        command = "--pipelines", "data_ingestion,model_training", "--params", f"{TINY},training.num_images={images}"
        with TRIAL.of(fake) if images < 32 else nullcontext():
            ok(project.kedro_run(*command))
        assert words in caplog.text


def test_two_runs_of_one_configuration_are_equal_to_the_bit(project: Project, tmp_path: Path) -> None:
    ok(project.kedro_run("--params", TINY))
    first = results(project)
    project.data.rename(tmp_path / "elsewhere")
    ok(project.kedro_run("--params", TINY))
    assert results(project) == first


def test_sampling_alone_from_the_exported_model(project: Project) -> None:
    ok(project.kedro_run("--params", TINY))
    before = digest(project.data / "06_models")
    ok(project.kedro_run("--pipelines", "sampling", "--params", "sampling.num_images=16,sampling.seed=7"))
    with np.load(project.data / "07_model_output/samples.npz") as arrays:
        first = arrays["arr_0"]
    assert len(first) == 16
    assert len(list((project.data / "07_model_output/samples").glob("*.png"))) == 16
    ok(
        project.kedro_run(
            "--pipelines", "sampling", "--params", "sampling.num_images=2,sampling.seed=7,sampling.label=1"
        )
    )
    with np.load(project.data / "07_model_output/samples.npz") as arrays:
        assert arrays["arr_1"].tolist() == [1, 1]
        assert np.array_equal(arrays["arr_0"][1], first[1])  # image 1 of seed 7 again, alone or among others
    assert digest(project.data / "06_models") == before


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
    def test_wrong_parameters(self, parameters: str, words: list[str], project: Project) -> None:
        message = failed(project.kedro_run("--params", f"{TINY},{parameters}"), *words)
        assert len(message.strip().splitlines()) == 1

    def test_no_model(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "sampling"), "No trained model in", "run `kedro run` first")

    def test_no_images(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "model_training"), "No images in", "data_ingestion` first")

    def test_a_model_of_another_configuration(self, project: Project) -> None:
        ok(project.kedro_run("--params", TINY))
        before = digest(project.data)
        message = failed(project.kedro_run("--pipelines", "sampling", "--params", "model.width=16"))
        assert "made with another configuration: model.width: 8 → 16" in message
        assert digest(project.data) == before

    def test_a_damaged_checkpoint(self, project: Project) -> None:
        ok(project.kedro_run("--params", TINY))
        path = project.data / "06_models/checkpoint.pt"
        path.write_bytes(path.read_bytes()[:1000])
        before = digest(project.data)
        failed(project.kedro_run("--params", TINY), "checkpoint.pt is damaged", "Move it away")
        assert digest(project.data) == before

    def test_an_unknown_pipeline(self, project: Project) -> None:
        failed(project.kedro_run("--pipelines", "samplin"), "Unknown pipeline 'samplin'", "Did you mean 'sampling'")

    def test_an_unknown_environment(self, project: Project) -> None:
        failed(project.kedro_run(env="somke"), "conf/somke", "Check --env")

    def test_a_file_that_is_not_yaml(self, project: Project) -> None:
        (project.folder / "conf/smoke/parameters.yml").write_text("training: {")
        failed(project.kedro_run(), "conf/smoke/parameters.yml", "Check its indentation")

    def test_a_data_folder_that_cannot_be_written(self, project: Project) -> None:
        (project.folder / "data").write_text("a file stands where the folder should be")
        failed(project.kedro_run(), "data/smoke", "cannot be written")

    def test_a_data_folder_on_a_read_only_file_system(self, project: Project) -> None:
        (project.folder / "conf/smoke/globals.yml").write_text("data_root: /proc/data")  # not even root writes there
        failed(project.kedro_run(), "The data folder /proc/data cannot be written")

    def test_a_data_folder_of_somebody_else(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        project.data.mkdir(parents=True)
        owner = project.data.stat().st_uid
        monkeypatch.setattr("ddpm_kedro.data_lock._open", forbidden)
        message = failed(project.kedro_run(), "cannot be written: Permission denied.")
        assert "belongs to user" not in message
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
        failed(project.kedro_run(), f"belongs to user {owner}, and this is user {owner + 1}", "--user", "chown")

    def test_a_configuration_without_its_base(self, project: Project) -> None:
        (project.folder / "conf/base").rename(project.folder / "conf/elsewhere")
        failed(project.kedro_run(), "conf/base", "conf/local, not over conf")

    def test_no_network(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
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
    command = ("ddpm_kedro", "--env", "smoke", "--params", parameters)
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
def test_ctrl_c_and_a_lost_terminal_keep_a_checkpoint(number: signal.Signals, project: Project) -> None:
    stop_in_mid_training(project, number)
    assert (project.data / "06_models/checkpoint.pt").exists()


def test_a_lost_terminal_that_nohup_ignores_is_ignored(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    def hear(*_: Any) -> None:
        heard.extend(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP))

    monkeypatch.setattr("ddpm_kedro.ingestion.small_sets.checksums", hear)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        project.kedro_run("--pipelines", "data_ingestion")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard[1] is signal.SIG_IGN
    assert heard[0] not in {signal.SIG_IGN, signal.SIG_DFL}


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


def test_one_line_says_why_no_gpu_computes(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.hardware.cuda_of_driver", lambda: (12, 4))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for device, there in ((name, name == "cpu") for name in ("cpu", "cuda", "mps")):
        monkeypatch.setitem(AVAILABLE, device, lambda there=there: there)
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", TINY))
    assert "GPU" not in caplog.text  # nothing to compute
    for arguments in ([], ["--pipelines", "sampling"]):
        caplog.clear()
        ok(project.kedro_run(*arguments, "--params", TINY))
        [line] = [record.message for record in caplog.records if "GPU" in record.message]
        assert "too old" in line
        assert line.endswith("The CPU computes.")
    caplog.clear()
    ok(project.kedro_run("--pipelines", "sampling", "--params", f"{TINY},sampling.device=cpu"))
    assert "GPU" not in caplog.text  # asked for the CPU
    failed(project.kedro_run("--pipelines", "sampling", "--params", f"{TINY},sampling.device=cuda"), "too old")


def test_signals_are_given_back_after_a_run(project: Project) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    failed(project.kedro_run("--params", "training.batch_size=5000"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_stop_gives_signals_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sweep other runs follow: a guard that took its own handler for the one before would call itself for ever."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ddpm_kedro.hooks.graceful_stop.Event", lambda: SimpleNamespace(is_set=lambda: True))
    assert project.kedro_run("--params", TINY).exit_code == 128
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_parameters_of_a_run_are_printed(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    ok(project.kedro_run("--params", f"{TINY},use.optimizer=sgd,optimizer.lr=0.125"))
    lines = {line.split(": ", 1)[0]: line for line in caplog.messages if ": " in line}
    assert "optimizer sgd" in lines["use"]
    assert "lr 0.125, momentum 0.95" in lines["optimizer"]
    caplog.clear()
    ok(project.kedro_run("--pipelines", "sampling", "--params", TINY))
    printed = [line.split(": ", 1)[0] for line in caplog.messages if ": " in line]
    assert "sampling" in printed
    assert "optimizer" not in printed  # sampling does not use it


def test_a_run_keeps_what_it_made_and_nothing_that_lay_there(project: Project) -> None:
    ok(project.kedro_run("--params", TINY))
    ok(project.kedro_run("--pipelines", "model_training", "--params", f"{TINY},training.seed=1"))
    run_id = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    kept = sorted(path.name for path in (project.data / "runs" / run_id).iterdir())
    assert kept == ["model", "parameters.json", "training_history.csv"]  # the samples are of the first run


def test_a_run_keeps_nothing_that_was_made_from_another_run(
    project: Project, smoke_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The samples that are evaluated here are those of the run before."""
    project.adopt(smoke_data)
    command = ("--pipelines", "model_training,evaluation,reporting", "--params", f"{TINY},training.seed=1")
    ok(project.kedro_run(*command))
    run_id = json.loads((project.data / "06_models/model/config.json").read_text())["run_id"]
    kept = sorted(path.name for path in (project.data / "runs" / run_id).iterdir() if path.suffix != ".pt")
    assert kept == ["model", "parameters.json", "training_history.csv"]
    assert f"metrics is not kept: it was not made from the outputs of run {run_id}." in caplog.text


def test_kept_parameters_are_those_that_the_kept_files_were_made_with(project: Project) -> None:
    ok(project.kedro_run("--params", f"{TINY},sampling.seed=3"))
    ok(
        project.kedro_run(
            "--pipelines", "model_training", "--params", f"{TINY},sampling.seed=4,training.preview_images=1"
        )
    )
    [run] = (project.data / "runs").iterdir()
    parameters = json.loads((run / "parameters.json").read_text())
    assert parameters["sampling"]["seed"] == 3
    assert parameters["training"]["preview_images"] == 1


def test_a_run_whose_copy_fails_is_not_listed_as_finished(
    project: Project, smoke_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, target: Path) -> None:
        if path.suffix == ".csv":
            raise OSError(28, "No space left on device", str(target))

    project.adopt(smoke_data)
    [run] = (project.data / "runs").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.hooks.archive.copy", fail)
        failed(project.kedro_run("--pipelines", "model_training"), "No space left on device")
    assert not (run / "parameters.json").exists()
    ok(project.kedro_run("--pipelines", "model_training"))
    assert (run / "parameters.json").exists()


def test_a_finished_training_outlives_a_new_one_that_is_killed(
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
        ok(project.kedro_run("--params", f"{TINY},training.deterministic={str(wanted).lower()}"))
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
