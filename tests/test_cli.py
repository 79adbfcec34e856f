"""The project's own commands."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from kedro.framework.startup import bootstrap_project

from ddpm_kedro.cli import cli
from tests.conftest import Project

IDS = ("aaa111", "aab222", "ccc333")


def kedro(project: Project, *arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli, arguments, obj=bootstrap_project(project.folder), input=answer)


def printed(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def failed(result: Result, *words: str) -> None:
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert all(word in result.output for word in words), result.output


@pytest.fixture
def kept(project: Project) -> Path:
    """Three finished runs, the last one the newest, and the folder of an unfinished one."""
    folder = project.data / "runs"
    for number, run_id in enumerate(IDS):
        (folder / run_id).mkdir(parents=True)
        parameters = project.parameters(f"optimizer.lr={(number + 1) / 1000}")
        (folder / run_id / "parameters.json").write_text(json.dumps(parameters))
        os.utime(folder / run_id / "parameters.json", (1e9 + number, 1e9 + number))
        (folder / run_id / "training_history.csv").write_text(
            f"images_seen,loss,validation_loss\n32,0.9,0.9\n64,0.{number + 1}5,0.{number + 1}\n"
        )
    (folder / "unfinished").mkdir()
    return folder


def test_a_finished_run_is_listed(project: Project, smoke_data: Path) -> None:
    assert "No finished run yet" in printed(kedro(project, "runs", "list", "--env", "smoke"))
    project.adopt(smoke_data)
    [row] = printed(kedro(project, "runs", "list", "--env", "smoke")).splitlines()[1:]
    [folder] = (project.data / "runs").iterdir()
    assert row.split()[0] == folder.name
    last = dict(zip(*(line.split(",") for line in project.history().splitlines()[0::2]), strict=True))
    losses = [f"{float(last[name]):.4f}" for name in ("loss", "validation_loss")]
    assert row.split()[3:] == ["mnist5k", "digits", "adam", "0.003", "64", *losses]


def test_runs_are_listed_newest_first(kept: Path, project: Project) -> None:
    rows = printed(kedro(project, "runs", "list", "--env", "smoke")).splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(reversed(IDS))


def test_a_run_on_own_images_is_listed_with_the_name_of_their_folder_or_file(kept: Path, project: Project) -> None:
    for run_id, path in zip(IDS, ("/a/my_pictures", "https://me:pw@host/cats.zip?token=pw", None), strict=True):
        parameters = json.loads((kept / run_id / "parameters.json").read_text())
        parameters["dataset"]["path"] = path
        (kept / run_id / "parameters.json").write_text(json.dumps(parameters))
        os.utime(kept / run_id / "parameters.json", (1e9, 1e9 + len(path or "")))
    rows = printed(kedro(project, "runs", "list", "--env", "smoke")).splitlines()[1:]
    assert [row.split("digits")[0].split(maxsplit=3)[3].strip() for row in rows] == [
        "cats.zip",
        "my_pictures",
        "mnist5k",
    ]
    assert "pw" not in printed(kedro(project, "runs", "diff", IDS[0], IDS[1], "--env", "smoke"))


def test_parameters_are_shown_and_dumped_without_secrets_of_urls(project: Project, tmp_path: Path) -> None:
    chosen = "dataset: {source: archive, path: 'https://me:pa55word@host/cats.zip?token=pa55word'}"
    (project.folder / "conf/smoke/parameters_mine.yml").write_text(chosen)
    printed(kedro(project, "parameters", "dump", str(tmp_path / "dumped.yml"), "--env", "smoke"))
    for text in (
        printed(kedro(project, "parameters", "show", "--env", "smoke")),
        (tmp_path / "dumped.yml").read_text(),
    ):
        assert "https://host/cats.zip#" in text
        assert "pa55word" not in text


def test_two_runs_are_compared(kept: Path, project: Project) -> None:
    lines = printed(kedro(project, "runs", "diff", "aaa", "ccc", "--env", "smoke")).splitlines()
    assert lines == ["optimizer.lr: 0.001 → 0.003", "loss: 0.15 → 0.35", "validation_loss: 0.1 → 0.3"]
    assert "The runs are equal." in printed(kedro(project, "runs", "diff", "ccc", "ccc", "--env", "smoke"))


def test_metrics_of_two_runs_are_compared_only_if_they_are_comparable(
    smoke_data: Path, kept: Path, project: Project
) -> None:
    [judged] = (smoke_data / "runs").glob("*/metrics.json")
    metrics = json.loads(judged.read_text())
    (kept / IDS[0] / "metrics.json").write_text(json.dumps(metrics))
    better = json.loads(judged.read_text())
    del better["checksum"]  # a file edited by hand has none
    better["figures"][1]["value"] = 0.5
    better["samples"] |= {"run_id": "another", "seconds": 1e3}
    (kept / IDS[2] / "metrics.json").write_text(json.dumps(better))
    said = printed(kedro(project, "runs", "diff", "aaa", "ccc", "--env", "smoke"))
    assert f"FD(classifier): {metrics['figures'][1]['value']} → 0.5" in said
    assert "another" not in said
    better["samples"] |= {"sampler": "unlike"}
    (kept / IDS[2] / "metrics.json").write_text(json.dumps(better))
    said = printed(kedro(project, "runs", "diff", "aaa", "ccc", "--env", "smoke"))
    assert f"cannot be compared, because these differ: sampler: {metrics['samples']['sampler']} → unlike" in said
    assert "FD(classifier)" not in said


@pytest.mark.parametrize(
    ("name", "words"),
    [("aa", ["Several runs", "aaa111", "aab222"]), ("ccc334", ["No finished run", "Did you mean 'ccc333'"])],
)
def test_an_unknown_run_is_rejected(name: str, words: list[str], kept: Path, project: Project) -> None:
    failed(kedro(project, "runs", "diff", "ccc", name, "--env", "smoke"), *words)


def test_old_runs_are_removed_after_confirmation(kept: Path, project: Project) -> None:
    arguments = ("runs", "prune", "--keep", "1", "--env", "smoke")
    refused = kedro(project, *arguments, answer="n\n")
    assert refused.exit_code == 1
    assert {path.name for path in kept.iterdir()} == {*IDS, "unfinished"}
    assert "Removed 2" in printed(kedro(project, *arguments, answer="y\n"))
    assert {path.name for path in kept.iterdir()} == {"ccc333", "unfinished"}
    assert "Nothing to remove" in printed(kedro(project, *arguments))
    assert "Removed 1" in printed(kedro(project, "runs", "prune", "--keep", "0", "--yes", "--env", "smoke"))


@pytest.fixture
def unfinished(kept: Path) -> Path:
    """Beside finished runs, one that left its last checkpoint and an earlier one, and a trial that was pruned."""
    for name, day in (("killed/checkpoint.pt", 2), ("killed/checkpoints/images_seen_8.pt", 1), ("pruned/best.pt", 3)):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(b"x" * 1_000_000)
        os.utime(kept / name, (1e9 + day * 86_400,) * 2)
    return kept


def test_checkpoints_of_unfinished_runs_are_listed_and_removed_on_request(unfinished: Path, project: Project) -> None:
    *_, blank, head, first, second = printed(kedro(project, "runs", "list", "--env", "smoke")).splitlines()
    assert blank == ""
    assert "Not finished (3.0 MB; `kedro runs prune --unfinished` removes them)" in head
    assert (first.split()[0], first.split()[-2:]) == ("pruned", ["1.0", "MB"])
    assert (second.split()[0], second.split()[-2:]) == ("killed", ["2.0", "MB"])
    arguments = ("runs", "prune", "--yes", "--env", "smoke")
    assert "Removed 2 runs." in printed(kedro(project, *arguments, "--keep", "1"))
    assert {path.name for path in unfinished.iterdir()} == {"ccc333", "unfinished", "killed", "pruned"}
    assert "Removed 2 runs." in printed(kedro(project, *arguments, "--unfinished"))
    assert {path.name for path in unfinished.iterdir()} == {"ccc333", "unfinished"}
    assert "Not finished" not in printed(kedro(project, "runs", "list", "--env", "smoke"))


def test_unfinished_runs_are_listed_if_no_run_is_finished(project: Project) -> None:
    path = project.data / "runs/killed/checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    said = printed(kedro(project, "runs", "list", "--env", "smoke"))
    assert "No finished run yet" in said
    assert "killed" in said


def test_prune_asks_what_to_remove(kept: Path, project: Project) -> None:
    result = kedro(project, "runs", "prune", "--env", "smoke")
    assert result.exit_code == 2
    assert "--keep N, --unfinished, or both" in result.output


def test_a_training_is_followed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project.data / "08_reporting/training_history.csv"
    path.parent.mkdir(parents=True)
    head = "images_seen,loss,learning_rate,gradient_norm,images_per_second,validation_loss\n"
    rows = [f"{seen}.0,0.5,1e-3,1.0,99.0,0.4\n" for seen in (8, 16, 24)]
    contents = iter(["", head + rows[0], head + rows[0] + rows[1], head + rows[2]])

    def wait(_: float) -> None:
        content = next(contents, None)
        if content is None:
            raise KeyboardInterrupt
        if content:
            path.write_text(content)

    monkeypatch.setattr("time.sleep", wait)
    lines = kedro(project, "runs", "watch", "--env", "smoke").output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["8", "16", "A", "24"]
    assert "loss 0.5000  validation 0.4000  lr 1.00e-03  99 images/s" in lines[0]
    assert len(printed(kedro(project, "runs", "watch", "--once", "--env", "smoke")).splitlines()) == 1


def test_options_are_listed_including_those_in_local(project: Project) -> None:
    own = project.folder / "conf/local/groups/model"
    own.mkdir(parents=True)
    (own / "mine.yml").write_text("model: {width: 24}")
    lines = printed(kedro(project, "parameters", "options")).splitlines()
    assert "model: digits, ho2020, medium, mine, pictures, small" in lines
    assert "optimizer: adam, adamw, course_adam, course_sgd, ho2020, sgd" in lines


def test_the_origin_of_each_value_is_shown(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("sampling: {num_images: 9}")
    (project.folder / "conf/local/groups/model").mkdir(parents=True)
    (project.folder / "conf/local/groups/model/mine.yml").write_text("model: {dropout: 0.25}")
    params = "optimizer.lr=0.5,use.experiment=cifar10"
    output = printed(kedro(project, "parameters", "show", "--params", params))
    rows = {row[0]: row[1:] for row in (line.strip().split(maxsplit=2) for line in output.splitlines()[1:])}
    assert rows["optimizer.lr"] == ["0.5", "the command line"]
    assert rows["sampling.num_images"] == ["9", "local/parameters.yml"]
    assert rows["training.ema_half_life"] == ["887000", "base/groups/training/ho2020.yml"]
    assert rows["model.width"] == ["128", "base/groups/model/ho2020.yml"]
    assert rows["images.seed"] == ["0", "base/parameters.yml"]
    resolved = project.parameters(params, env="local")
    assert rows["model.width"][0] == str(resolved["model"]["width"])


@pytest.mark.parametrize("name", ["parameters.json", "metrics.json", "training_history.csv"])
def test_a_damaged_file_of_one_run_does_not_hide_the_others(
    name: str, finished: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project, runs = finished, finished.data / "runs"
    [whole] = runs.iterdir()
    shutil.copytree(whole, runs / "damaged")
    content = (whole / name).read_bytes()
    half = content[: len(content) // 2] if name.endswith("json") else b"images_seen,loss\n8,"
    for damaged in (b"", half, b"[1]", b'{"use": 3, "figures": 3}', b"\xff"):
        (runs / "damaged" / name).write_bytes(damaged)
        caplog.clear()
        assert whole.name in printed(kedro(project, "runs", "list", "--env", "smoke"))
        assert f"damaged/{name} is damaged" in caplog.text
        other = () if name == "parameters.json" else ("damaged",)
        for run in (whole.name, *other):
            printed(kedro(project, "runs", "diff", whole.name, run, "--env", "smoke"))
    output = printed(kedro(project, "runs", "prune", "--keep", "0", "--yes", "--env", "smoke"))
    assert whole.name in output
    assert (runs / "damaged").exists() == (name == "parameters.json")


def test_resolved_parameters_are_dumped_to_a_file(project: Project) -> None:
    printed(kedro(project, "parameters", "dump", "deep/all.yaml", "--env", "smoke"))
    assert yaml.safe_load((project.folder / "deep/all.yaml").read_text()) == project.parameters()


def test_restart_lets_a_finished_training_start_from_scratch(
    project: Project, smoke_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    restart = ("runs", "restart", "--env", "smoke")
    assert "No checkpoints to move." in printed(kedro(project, *restart))
    project.adopt(smoke_data)
    [folder] = (project.data / "runs").iterdir()
    for number in (1, 2):
        said = printed(kedro(project, *restart))
        assert said.count(f"{folder.name}/retired_{number}.\n") == 1
        for name in ("checkpoint.pt", "best_checkpoint.pt", "checkpoints"):
            assert (folder / f"retired_{number}" / name).exists()
        assert "The next training starts from scratch." in said
        caplog.clear()
        assert project.kedro_run("--pipelines", "model_training").exit_code == 0
        assert f"Run {folder.name} trains on" in caplog.text
    assert not list(folder.glob("*.pt"))
    assert len(list(folder.glob("checkpoints/*.pt"))) == 1


def test_a_first_mark_leaves_the_checkpoint_in_place(finished: Project) -> None:
    """Without a stamp file it is unknown whether the code has changed: the checkpoint stays."""
    project, restart = finished, ("runs", "restart", "--mark", "data/mark.txt", "--env", "smoke")
    assert "No checkpoints to move." in printed(kedro(project, *restart))
    assert (project.data / "06_models/checkpoint.pt").exists()
    assert "retired_1." in printed(kedro(project, *restart))
    assert "retired_1." in (project.folder / "data/mark.txt").read_text()


def test_an_unknown_environment_is_rejected(project: Project) -> None:
    failed(kedro(project, "runs", "list", "--env", "nosuch"), "Check --env")


def test_an_unknown_option_is_rejected(project: Project) -> None:
    failed(kedro(project, "parameters", "show", "--params", "use.model=digit"), "Did you mean 'digits'")


def test_kedro_finds_the_commands_and_its_own_run() -> None:
    from kedro.framework.cli.utils import find_run_command  # noqa: PLC0415

    assert find_run_command("ddpm_kedro") is cli.commands["run"]
    assert set(cli.commands) == {"run", "runs", "parameters", "plan", "sweep"}
