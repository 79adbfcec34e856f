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
        edited = content.replace('"width": 32', '"width": 40')
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
