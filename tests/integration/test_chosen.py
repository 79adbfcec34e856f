"""The parameters that were chosen for a user's images, or trained with, are used by the next commands."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.session import KedroSession

from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.parameters import check_parameters
from ddpm_kedro.planning import measurement
from ddpm_kedro.provenance import fingerprint
from tests.archives import Server, serve_mnist
from tests.conftest import Project, changed
from tests.ingestion.test_image_files import folder_of, members
from tests.integration.test_whole_job import ok
from tests.integration.test_your_images import FILES, run

GROUPS = ("dataset", "images", "augmentation", "model", "diffusion", "optimizer", "training")


def chosen_file(project: Project) -> Path:
    return project.data / "05_model_input/chosen_parameters.json"


def run_ids(project: Project) -> list[str]:
    return [path.parent.name for path in project.data.glob("runs/*/parameters.json")]


def ingest(project: Project, path: Path | str, **more: object) -> str:
    return run(project, Path(path), "--pipelines", "data_ingestion", **more)


@pytest.mark.slow
def test_the_next_commands_use_the_images_and_parameters_of_the_last_training(project: Project, tmp_path: Path) -> None:
    pictures = folder_of(tmp_path / "pictures", FILES)
    given = {"use.dataset": "folder", "training.seed": 3, "optimizer.lr": 1e-4, "training.device": "cpu"}
    run(project, pictures, "--pipelines", "data_ingestion,model_training", **given)
    [run_id] = run_ids(project)
    parameters = json.loads((project.data / "runs" / run_id / "parameters.json").read_text())
    now = project.parameters()
    then, plain = (check_parameters(each) for each in (parameters, now))
    assert [name for name in GROUPS if getattr(then, name) != getattr(plain, name)] == ["training"]
    assert changed(then.training, device="auto") == plain.training
    assert now["use"] == parameters["use"] | {"dataset": "pictures"}
    ok(project.kedro_run("--pipelines", "sampling"))
    ok(project.kedro_run("--pipelines", "data_ingestion,model_training"))
    assert run_ids(project) == [run_id]


@pytest.mark.slow
def test_the_next_commands_use_the_parameters_of_a_later_training(project: Project, tmp_path: Path) -> None:
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    changes = "model.blocks_per_level=2,use.augmentation=none"
    ok(project.kedro_run("--pipelines", "model_training", "--params", changes))
    now = project.parameters()
    assert (now["model"]["blocks_per_level"], now["augmentation"]["horizontal_flip"]) == (2, False)
    assert now["use"] | {"model": "chosen", "augmentation": "none", "dataset": "pictures"} == now["use"]
    ok(project.kedro_run("--pipelines", "sampling"))
    before = chosen_file(project).read_bytes()
    ok(project.kedro_run("--pipelines", "data_ingestion"))  # which chooses nothing else
    assert chosen_file(project).read_bytes() == before
    assert project.parameters("use.model=small")["model"]["blocks_per_level"] == 2  # as small has it
    assert project.parameters("use.model=small")["model"]["channel_multipliers"] == [1, 2, 2, 2]


def test_a_data_folder_with_shared_images_uses_the_parameters_chosen_for_them(project: Project, tmp_path: Path) -> None:
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    globals_file = project.folder / "conf/smoke/globals.yml"
    globals_file.write_text("data_root: data/second\nimages_root: data/smoke\n")
    assert project.parameters()["use"]["dataset"] == "pictures"
    second = project.folder / "data/second/05_model_input/chosen_parameters.json"
    second.parent.mkdir(parents=True)
    shutil.copy(chosen_file(project), second)
    chosen_file(project).unlink()
    assert project.parameters()["use"]["dataset"] == "pictures"


def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the devices that are measured from now on."""
    found: list[str] = []
    measure = measurement.measure_profile

    def note(kind: str, *more: Any) -> Any:
        found.append(kind)
        return measure(kind, *more)

    monkeypatch.setattr(measurement, "measure_profile", note)
    return found


@pytest.mark.slow
def test_one_command_trains_what_its_plan_says_and_the_next_ones_agree(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddpm_kedro")
    devices = measured(monkeypatch)
    pictures = folder_of(tmp_path / "pictures", FILES)
    pipelines = ("--pipelines", "data_ingestion,model_training")
    run(project, pictures, *pipelines)
    stored = json.loads(chosen_file(project).read_text())
    assert stored["plan"]["in_use"]
    [run_id] = run_ids(project)
    trained = json.loads((project.data / "runs" / run_id / "parameters.json").read_text())
    assert trained["optimizer"]["lr"] == stored["parameters"]["optimizer"]["lr"] != 3e-3
    assert trained["model"] == stored["parameters"]["model"]
    assert stored["parameters"]["evaluation"] == {"fit_images": 128}
    assert caplog.text.count("The plan of this training:") == 1
    run(project, pictures, *pipelines)
    ok(project.kedro_run(*pipelines))
    assert run_ids(project) == [run_id]
    ok(project.kedro_run(*pipelines, "--params", "model.blocks_per_level=2"))
    assert "model.blocks_per_level = 2 replaces the 1 of the plan" in caplog.text
    assert len(run_ids(project)) == 2
    assert len(devices) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ("plan.renew=true", "plan.renew is true"),
        ("plan.time_budget=1h", "plan.time_budget was 10min"),
        ("images.size=24", "the stored plan is for other images"),
    ],
)
def test_a_stored_plan_is_renewed_for_a_reason(
    changes: str, reason: str, project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddpm_kedro")
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    before = chosen_file(project).read_bytes()
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    assert chosen_file(project).read_bytes() == before
    caplog.clear()
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", changes))
    assert f"Planning the training: {reason}." in caplog.text
    renewed = json.loads(chosen_file(project).read_text())["parameters"]
    assert (renewed == json.loads(before)["parameters"]) == (changes == "plan.renew=true")
    assert "renew" not in renewed["plan"]


def test_parameters_that_an_earlier_version_stored_are_used(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddpm_kedro")
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    parameters = json.loads(chosen_file(project).read_text())["parameters"]
    groups = {name: parameters[name] for name in ("use", "dataset", "images", "model")}
    earlier = groups | {"training": {"batch_size": 8, "ema_decay": 0.99}, "optimizer": {"lr": 0.002}}
    chosen_file(project).write_text(json.dumps({"parameters": earlier, "fingerprint": fingerprint(earlier)}))
    found = project.parameters()
    assert (found["optimizer"]["lr"], found["training"]["ema_half_life"]) == (0.002, 552)
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    assert "The parameters were stored by an earlier version; plan.renew=true makes a plan." in caplog.text
    assert json.loads(chosen_file(project).read_text())["parameters"]["optimizer"] == {"lr": 0.002}


def test_the_default_digits_are_not_planned_and_time_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measure_profile", "name_device"):
        monkeypatch.setattr(measurement, name, lambda *_: pytest.fail("the device was measured"))
    before = project.parameters()
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    assert json.loads(chosen_file(project).read_text())["parameters"] == {}
    assert project.parameters() == before


@pytest.mark.slow
def test_trials_of_a_sweep_change_no_chosen_parameters(project: Project, tmp_path: Path) -> None:
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    ok(project.kedro_run("--pipelines", "model_training", "--params", "model.blocks_per_level=2"))
    before = chosen_file(project).read_bytes()

    class Trial:
        def report(self, value: float, step: int) -> None: ...

        def should_prune(self) -> bool:
            return False

    with TRIAL.of(Trial()):
        ok(project.kedro_run("--pipelines", "data_ingestion,model_training", "--params", "optimizer.lr=0.1"))
    assert chosen_file(project).read_bytes() == before


def test_a_missing_folder_is_an_error_only_if_the_store_must_be_made(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = folder_of(tmp_path / "pictures", FILES)
    ingest(project, pictures)
    pictures.rename(tmp_path / "elsewhere")
    store = project.data / "05_model_input/training_images/store.json"
    before = store.stat().st_mtime_ns, chosen_file(project).read_bytes()
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    assert f"{pictures} does not exist. The images made from it earlier are used." in caplog.text
    ingest(project, "pictures")  # the same, from here
    assert (store.stat().st_mtime_ns, chosen_file(project).read_bytes()) == before
    for changes in ("images.size=24", "dataset.classes=false"):
        result = project.kedro_run("--pipelines", "data_ingestion", "--params", changes)
        assert result.exit_code == 1
        assert f"dataset.path = {pictures} does not exist" in result.output
        assert "Traceback" not in result.output


def test_a_missing_archive_is_an_error_only_if_the_store_must_be_made(
    project: Project, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.ingestion.transferring.BACKOFF", 0.0)
    members(server[1] / "pictures.zip", FILES)
    url = f"{server[0]}/pictures.zip?token=1"
    given = f"dataset.source=archive,dataset.path={url},images.size=16"
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", given))
    (server[1] / "pictures.zip").unlink()
    ok(project.kedro_run("--pipelines", "data_ingestion"))  # the downloaded file is there
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", "images.size=24"))
    shutil.rmtree(project.data / "01_raw/archive")
    ok(project.kedro_run("--pipelines", "data_ingestion"))
    ok(
        project.kedro_run(
            "--pipelines", "data_ingestion", "--params", given.replace("size=16", "size=24").replace("=1,", "=2,")
        )
    )
    result = project.kedro_run("--pipelines", "data_ingestion", "--params", "images.size=32")
    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_a_missing_torchvision_dataset_is_an_error_only_if_the_store_must_be_made(
    project: Project, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_mnist("mnist", server, monkeypatch)
    given = ("--pipelines", "data_ingestion", "--params")
    ok(project.kedro_run(*given, "use.dataset=mnist"))
    shutil.rmtree(server[1])
    shutil.rmtree(project.data / "01_raw/mnist")
    ok(project.kedro_run(*given, "use.dataset=mnist"))
    result = project.kedro_run(*given, "use.dataset=mnist,images.size=16")
    assert result.exit_code == 1
    assert "The files of MNIST are not in" in result.output


@pytest.mark.parametrize("damage", ["empty", "cut", "edited", "a list", "removed", "a folder"])
def test_a_damaged_file_of_chosen_parameters_is_reported_and_the_store_is_kept(
    damage: str, project: Project, tmp_path: Path
) -> None:
    ingest(project, folder_of(tmp_path / "pictures", FILES))
    path, store = chosen_file(project), project.data / "05_model_input/training_images/store.json"
    content, before = path.read_text(), store.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "removed":
        edited = content.replace('"width": 8', '"width": 40')
        path.write_text({"empty": "", "cut": content[:200], "a list": "[]", "edited": edited}[damage])
    result = project.kedro_run("--pipelines", "data_ingestion")
    assert result.exit_code == 1
    assert str(path) in result.output
    assert "was removed" if damage == "removed" else "is damaged" in result.output
    assert "--params use.dataset=mnist5k" in result.output
    assert "Traceback" not in result.output
    assert store.read_bytes() == before
    if damage != "a folder":
        ok(project.kedro_run("--pipelines", "data_ingestion", "--params", "use.dataset=mnist5k"))
        assert project.parameters()["dataset"]["source"] == "mnist5k"


NAMES = [
    b"latin-1 \xe9\xff",
    b"${oc.env:HOME}",
    b"\\\\${",
    b"[red]a[b]",
    b"a:",
    b"{x: 1}, 'b' # c",
    'näme\n"²'.encode(),
    b"%s?x=1",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_path_of_any_bytes_is_ingested_and_used_again(
    name: bytes, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder_of(tmp_path / "pictures", FILES).rename(folder)
    given = {"dataset": {"source": "folder", "path": str(folder)}, "images": {"size": 16}}

    def parameters(runtime: dict[str, Any] | None = None) -> dict[str, Any]:
        with KedroSession.create(project.folder, env="smoke", runtime_params=runtime) as session:
            session.run(pipeline_names=["data_ingestion"])
            found: dict[str, Any] = session.load_context().config_loader["parameters"]
            return found

    assert parameters(given)["dataset"]["path"] == str(folder)
    assert parameters()["dataset"]["path"] == str(folder)
    assert parameters()["use"]["dataset"] == folder.name
    assert "Traceback" not in "".join(capsys.readouterr())
