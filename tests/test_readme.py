"""The commands of README.md and docs/ do what they say."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from ddpm_kedro.cli import cli
from tests.archives import Server, serve_cifar10, serve_mnist
from tests.conftest import ROOT, Project
from tests.ingestion.test_image_files import folder_of
from tests.integration.test_your_images import FILES

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"^```(bash|console|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Every command of the pages that begins like this, in blocks and in running text."""
    lines = [line.split("  #")[0].strip() for kind, body in BLOCKS if kind == "bash" for line in body.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", TEXT)
    return list(dict.fromkeys(line for line in lines if line.startswith(program)))


KEDRO = [command for command in commands("kedro run") if not command.startswith("kedro runs")]
OWN = [*commands("kedro runs "), *commands("kedro parameters ")]
SWEEPS = commands("kedro sweep ")
DVC = commands("dvc ")
MAKE = commands("make ")


def test_there_are_commands_to_test() -> None:
    assert len(KEDRO) > 8
    assert {
        "make run",
        "make viz",
        "make digits",
        "make lint test",
        "make mutants",
        "make image",
        "make image-test",
        "make repro",
    } <= set(MAKE)


@pytest.mark.parametrize("command", [command for command in MAKE if "PYTHON" not in command])
def test_make_knows_its_targets(command: str) -> None:
    subprocess.run(["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", KEDRO)
def test_kedro_commands_run(
    command: str, project: Project, server: Server, smoke_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the smoke environment: with few images, but as written otherwise; judged only where a command says so."""
    serve_cifar10(server, monkeypatch)
    serve_mnist("fashion_mnist", server, monkeypatch)
    words = re.sub(r"(training|sampling).num_images=[\d_]+", r"\1.num_images=64", command).split()[2:]
    words = [word for word in words if word not in {"--env", "smoke"}]
    if "dataset.path=pictures" in command:
        folder_of(project.folder / "pictures", FILES)
    if "dataset.path=images.npz" in command:
        np.savez(project.folder / "images.npz", images=np.zeros((40, 28, 28), dtype=np.uint8))
    if "resume=require" in command:
        project.adopt(smoke_data)
    if "--pipelines" not in words:
        words += ["--pipelines", "data_ingestion,model_training,sampling"]
    elif "data_ingestion" not in words:
        project.adopt(smoke_data)
    result = project.kedro_run(*words)
    assert result.exit_code == 0, result.output


def test_the_projects_own_commands_run(project: Project) -> None:
    ids = ["9807f43cc7aa", "a827fcf34361"]  # those of the page
    for run_id, parameters in zip(ids, ("optimizer.lr=1e-3", "optimizer.lr=2e-3"), strict=True):
        folder = project.data / "runs" / run_id
        folder.mkdir(parents=True)
        (folder / "parameters.json").write_text(json.dumps(project.parameters(parameters)))
    assert len(OWN) >= 5
    for command in OWN:
        arguments = [*command.split()[1:], "--env", "smoke"]
        result = CliRunner().invoke(cli, arguments, obj=bootstrap_project(project.folder))
        assert result.exit_code == 0, f"{command}: {result.output}"


@pytest.mark.parametrize("command", SWEEPS)
def test_sweeps_run(command: str, project: Project) -> None:
    """Shortened."""
    words = re.sub(r"(num_images|report_interval)=[\d_]+", r"\1=16", command).replace("..64", "..32").split()[1:]
    if "--trials" in words:
        words[words.index("--trials") + 1] = "2"
    result = CliRunner().invoke(cli, [*words, "--env", "smoke"], obj=bootstrap_project(project.folder))
    assert result.exit_code == 0, result.output
    assert result.output.count(" complete ") == (2 if "--trials" in words else 4)


def test_the_commands_of_dvc_are_those_that_are_tested() -> None:
    tested = (ROOT / "tests/integration/test_dvc.py").read_text()
    assert DVC
    for command in DVC:
        words = ", ".join(f'"{word}"' for word in shlex.split(command)[1:])
        assert f"dvc({words})" in tested, command


def test_the_python_example_runs(finished: Project) -> None:
    [example] = [body for kind, body in BLOCKS if kind == "python"]
    names: dict[str, object] = {}
    exec(example.replace("data/06_models", "data/smoke/06_models"), names)
    assert names["images"].shape == (4, 1, 28, 28)


def test_the_error_shown_in_the_documentation_is_the_real_one(project: Project) -> None:
    [example] = [body for kind, body in BLOCKS if kind == "console" and "Error: " in body]
    command, expected = example.removeprefix("$ kedro run ").split("\n", 1)
    assert project.kedro_run(*command.split()).output.strip().endswith(expected.strip())


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_shipped_option_is_documented() -> None:
    for path in (ROOT / "conf/base/groups").glob("*/*.yml"):
        assert path.stem in TEXT, path
