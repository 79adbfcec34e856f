"""Values on the command line and in files reach a run unchanged, or are rejected."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click import ClickException
from click.testing import CliRunner
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from ddpm_kedro.cli import cli, run
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import RunRecord, TrainedModel
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.sampling.generation import choose_labels
from tests.conftest import Project


def parsed(*arguments: str) -> dict[str, Any]:
    return run.make_context("run", list(arguments)).params


def test_params_given_twice_are_merged() -> None:
    given = ("--params", "sampling.seed=7,sampling.label=3", "--params", "training.seed=8")
    assert parsed(*given)["params"] == {"sampling": {"seed": 7, "label": "3"}, "training": {"seed": 8}}
    assert parsed()["params"] == {}


@pytest.mark.parametrize("option", ["pipelines", "tags", "from_nodes", "to_nodes", "namespaces", "node_names"])
def test_lists_given_twice_are_merged(option: str) -> None:
    name = f"--{option.removesuffix('_names').replace('_', '-')}{'s' if option == 'node_names' else ''}"
    assert list(parsed(name, "a,b", name, "c")[option]) == ["a", "b", "c"]


def test_kedro_run_is_the_command_of_the_project(project: Project) -> None:
    assert cli.commands["run"] is run
    options = ("--params", "sampling.seed=x", "--params", "training.seed=y")
    result = CliRunner().invoke(cli, ["run", *options], obj=bootstrap_project(project.folder))
    assert "Parameter 'sampling.seed' = 'x'" in result.output
    assert "Parameter 'training.seed' = 'y'" in result.output


TEXTS = [
    "01",
    "007",
    "2024",
    "1e3",
    "no",
    "yes",
    "on",
    "@x",
    "[a",
    "{",
    "*.png",
    "~/pictures",
    "a: b",
    "#1",
    "1:30",
    "%",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["dataset.path", "tracking.name", "sampling.label", "use.model"])
def test_text_stays_text(name: str, text: str) -> None:
    group, key = name.split(".")
    assert parsed("--params", f"{name}={text}")["params"] == {group: {key: text}}


@pytest.mark.parametrize("name", ["dataset.path", "tracking.name", "use.experiment"])
@pytest.mark.parametrize("text", ["null", ""])
def test_null_is_text_only_for_a_class_name(name: str, text: str) -> None:
    group, key = name.split(".")
    assert parsed("--params", f"{name}={text}")["params"] == {group: {key: None}}
    assert parsed("--params", "sampling.label=null")["params"] == {"sampling": {"label": "null"}}


def test_values_of_other_types_are_yaml() -> None:
    given = "sampling.seed=7,optimizer.lr=1e-4,training.deterministic=on,training.num_images=1_000,images.size=40x60"
    assert parsed("--params", given)["params"] == {
        "sampling": {"seed": 7},
        "optimizer": {"lr": 1e-4},
        "training": {"deterministic": True, "num_images": 1000},
        "images": {"size": "40x60"},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sampling.seed=010", "sampling.seed = 010 is 8 in YAML. Write numbers in decimal, without leading zeros."),
        ("sampling.seed=0x10", "sampling.seed = 0x10 is 16 in YAML"),
        ("images.size=1:30", "images.size = 1:30 is 90 in YAML"),
        ("sampling.seed=@x", "Parameter 'sampling.seed' = '@x' cannot be read: found character '@'"),
        ("sampling.seed", "'sampling.seed' is not a parameter with a value, such as sampling.seed=7."),
        ("optimizer=sgd,optimizer.lr=1e-4", "optimizer.lr is given both as a value and as a group of parameters."),
        ("optimizer.lr=1e-4,optimizer=sgd", "optimizer is given both as a value and as a group of parameters."),
    ],
)
def test_values_that_would_be_changed_or_dropped_are_rejected(given: str, message: str) -> None:
    with pytest.raises(ClickException) as error:
        parsed("--params", given)
    assert message in error.value.message


def resolved(project: Project) -> dict[str, Any]:
    with KedroSession.create(project.folder, env="local") as session:
        parameters: dict[str, Any] = session.load_context().config_loader["parameters"]
        return parameters


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "sampling: {label: 01}",
            "line 1: sampling.label takes text, but YAML reads 01 as 1. Write it in quotes: '01'.",
        ),
        ("sampling:\n  label: no", "line 2: sampling.label takes text, but YAML reads no as False."),
        ("tracking: {name: 1e3}", "tracking.name takes text, but YAML reads 1e3 as 1000.0."),
        ("import_model: {class_names: [a, 01]}", "import_model.class_names takes text, but YAML reads 01 as 1."),
        ("sampling: {seed: 010}", "sampling.seed = 010 is 8 in YAML. Write numbers in decimal"),
    ],
)
@pytest.mark.parametrize("place", ["parameters.yml", "groups/model/mine.yml"])
def test_unquoted_text_in_a_parameter_file_is_rejected(
    written: str, message: str, place: str, project: Project
) -> None:
    file = project.folder / "conf/local" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(written)
    if place != "parameters.yml":
        (project.folder / "conf/local/parameters.yml").write_text("use: {model: mine}")
    with pytest.raises(UserError) as error:
        resolved(project)
    assert message in str(error.value)
    assert str(file) in str(error.value)


def test_quoted_text_and_plain_numbers_in_a_file_are_text(project: Project) -> None:
    written = "sampling: {label: '01'}\ntracking: {name: 2024}\ndataset: {path: 7}\ntraining: {num_images: 36_000}"
    (project.folder / "conf/local/parameters.yml").write_text(written)
    found = resolved(project)
    assert found["sampling"]["label"] == "01"
    assert (found["tracking"]["name"], found["dataset"]["path"]) == ("2024", "7")
    assert found["training"]["num_images"] == 36_000


def test_unquoted_text_in_a_run_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text("run:\n  params:\n    sampling:\n      label: 01\n")
    with pytest.raises(ClickException, match=r"run.yml, line 4: sampling.label takes text, but YAML reads 01 as 1"):
        parsed("--config", str(tmp_path / "run.yml"))
    (tmp_path / "run.yml").write_text("run:\n  pipelines: sampling\n  params:\n    sampling: {label: '01'}\n")
    assert parsed("--config", str(tmp_path / "run.yml"))["params"] == {"sampling": {"label": "01"}}


def model_of(*names: str) -> TrainedModel:
    return TrainedModel(None, RunRecord(Provenance({}, {}), (1, 8, 8), names), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "label", "index"),
    [
        (("01", "02", "03"), "01", 0),
        (("01", "02", "03"), "03", 2),
        (("01", "02", "03"), "1", 1),
        (("1", "2", "3"), "1", 0),
        (("1", "2", "3"), 1, 0),
        (("1", "2", "3"), "0", 0),
        (("maybe", "no", "yes"), "no", 1),
        (("auto", "null", "on"), "null", 1),
        (("auto", "null", "on"), "on", 2),
        (("auto", "null", "on"), None, None),
        (("cat", "dog"), "null", None),
    ],
)
def test_a_label_is_a_class_name_or_a_class_number(names: tuple[str, ...], label: Any, index: int | None) -> None:
    found = choose_labels(model_of(*names), label, 4)
    assert found is not None
    expected = torch.arange(4) % len(names) if index is None else torch.full((4,), index)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("label", ["3", "-1", "01", "03", "1.0", "@x", ""])
def test_an_unknown_label_is_rejected(label: str) -> None:
    with pytest.raises(UserError, match=r"is not a class of this model"):
        choose_labels(model_of("1", "2"), label, 4)
    assert choose_labels(model_of(), "null", 4) is None


def test_a_leading_tilde_is_the_home_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    written = "dataset: {path: ~/pictures}\ntraining: {initial_model: ~/model}\nimport_model: {path: a~b}"
    (project.folder / "conf/local/parameters.yml").write_text(written)
    found = resolved(project)
    assert found["dataset"]["path"] == "/home/somebody/pictures"
    assert found["training"]["initial_model"] == "/home/somebody/model"
    assert found["import_model"]["path"] == "a~b"


def test_values_in_brackets_are_shown_unchanged(project: Project) -> None:
    arguments = ["parameters", "show", "--params", "dataset.path=a[b]c[/b],tracking.name=[red]:cat:"]
    result = CliRunner().invoke(cli, arguments, obj=bootstrap_project(project.folder))
    assert result.exit_code == 0, result.output
    assert "a[b]c[/b]" in result.output
    assert "[red]:cat:" in result.output
    assert "[1, 2]" in result.output or "[2, 3]" in result.output  # lists, too
