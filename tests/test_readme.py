"""README.md and docs/: every command works, every link and message exists."""

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
from tests.documentation import (
    BLOCKS,
    FENCED,
    NOT_RUN,
    PAGES,
    TEXT,
    anchors,
    commands,
    fenced_commands,
    messages,
    not_run,
)
from tests.ingestion.test_image_files import folder_of
from tests.integration.test_your_images import FILES

KEDRO = [command for command in commands("kedro run") if not command.startswith("kedro runs")]
OWN = [*commands("kedro runs "), *commands("kedro parameters ")]
SWEEPS = commands("kedro sweep ")
DVC = commands("dvc ")
MAKE = commands("make ")
CONTAINER = commands("docker run ", (ROOT / "docs/container.md").read_text())  # tests/container runs them
TORCHRUN = commands("torchrun ")  # tests/test_distributed_docs.py parses them
TESTED = {*KEDRO, *OWN, *SWEEPS, *DVC, *MAKE, *CONTAINER, *TORCHRUN}
FOREIGN = re.compile("No space left on device|nan in step")  # the system's words, and a value
COMPOSED = re.compile(
    "Kedro project|Pipeline execution|optimizer: |Samples: |Report: |Chosen for"
)  # of Kedro, or in parts
COMPARED = (
    "| Training step, images",
    "| Training step, % of the FLOP/s",
    "| KID after",
)  # rows of the README's table with our measurements


def test_pages_contain_commands() -> None:
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


def test_every_command_is_tested_or_listed_with_a_reason() -> None:
    found = [command for page in PAGES for command in fenced_commands(page.read_text())]
    assert [command for command in found if command not in TESTED and not not_run(command)] == []
    assert [beginning for beginning in NOT_RUN if not any(command.startswith(beginning) for command in found)] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_each_page_ends_in_a_tested_command(page: Path) -> None:
    kind, body = FENCED.findall(page.read_text())[-1]
    assert kind == "bash"
    assert TESTED & {line.split("  #")[0].strip() for line in body.splitlines()}


def test_make_knows_its_targets() -> None:
    targets = {word for command in MAKE for word in shlex.split(command)[1:] if "=" not in word}
    assert len(targets) > 15
    subprocess.run(["make", "--dry-run", *sorted(targets)], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", KEDRO)
def test_kedro_commands_run(
    command: str, project: Project, server: Server, smoke_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as written, except for the smoke environment and fewer images; evaluate only if the command says so."""
    serve_cifar10(server, monkeypatch)
    serve_mnist("fashion_mnist", server, monkeypatch)
    count = 64 if "resume" in command or "evaluation" in command else 8
    words = [word for word in command.split()[2:] if word not in {"--env", "smoke"}]
    few = "training.preview_images=1,training.validation_images=4,sampling.num_images=2"
    words += ["--params", f"training.num_images={count},{few}"]  # the last value wins
    if "dataset.path=pictures" in command:
        folder_of(project.folder / "pictures", FILES)
    if "dataset.path=images.npz" in command:
        np.savez(project.folder / "images.npz", images=np.zeros((40, 28, 28), dtype=np.uint8))
    later = {"--pipelines", "--nodes"} & {*words} and "data_ingestion" not in words
    if "resume=require" in command or later:
        project.adopt(smoke_data)
    else:
        project.adopt_images(smoke_data)
    if not {"--pipelines", "--nodes"} & {*words}:
        words += ["--pipelines", "data_ingestion,model_training,sampling"]
    result = project.kedro_run(*words)
    assert result.exit_code == 0, result.output


def test_own_commands_run(project: Project) -> None:
    ids = ["9807f43cc7aa", "a827fcf34361"]  # as on the page
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
def test_sweeps_run(command: str, project: Project, smoke_data: Path) -> None:
    """Run as written, except for fewer images and trials."""
    project.adopt_images(smoke_data)
    words = re.sub(r"(num_images|report_interval)=[\d_]+", r"\1=16", command).replace("..64", "..32").split()[1:]
    if "--trials" in words:
        words[words.index("--trials") + 1] = "2"
    result = CliRunner().invoke(cli, [*words, "--env", "smoke"], obj=bootstrap_project(project.folder))
    assert result.exit_code == 0, result.output
    assert result.output.count(" complete ") == (2 if "--trials" in words else 4)


def test_dvc_commands_are_tested() -> None:
    tested = (ROOT / "tests/integration/test_dvc.py").read_text()
    assert DVC
    for command in DVC:
        words = ", ".join(f'"{word}"' for word in shlex.split(command)[1:])
        assert f"dvc({words})" in tested, command


def test_python_example_runs(finished: Project) -> None:
    [example] = [body for kind, body in BLOCKS if kind == "python"]
    names: dict[str, object] = {}
    exec(example.replace("data/06_models", "data/smoke/06_models"), names)
    assert names["images"].shape == (4, 1, 28, 28)


def test_documented_error_is_the_real_one(project: Project) -> None:
    [example] = [body for kind, body in BLOCKS if kind == "console" and "Error: " in body]
    command, expected = example.removeprefix("$ kedro run ").split("\n", 1)
    assert project.kedro_run(*command.split()).output.strip().endswith(expected.strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_anchors_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if not target.startswith("http"):
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_index_lists_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"[{page.name}]({page.name})" in index


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_readme_compares_measured_values() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith(COMPARED)]
    values = [cell for row in rows for cell in row if re.fullmatch(r"[\d.]+(?: %)?", cell)]
    measured = (ROOT / "docs/benchmarks.md").read_text()
    assert (len(rows), len(values)) == (len(COMPARED), 8)
    assert [value for value in values if f" {value.replace(' %', '%')} " not in measured] == []


def test_documented_messages_exist() -> None:
    known = messages() + (ROOT / "Makefile").read_text()
    table = (ROOT / "docs/troubleshooting.md").read_text().split("| message | what to do |")[1].split("\n\n")[0]
    quoted = [text for row in table.splitlines() for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    parts = [part.strip(" ,") for text in quoted for part in text.split("…")]
    assert len(parts) > 20
    assert [part for part in parts if part not in known and not FOREIGN.search(part)] == []


def test_every_shipped_option_is_documented() -> None:
    for path in (ROOT / "conf/base/groups").glob("*/*.yml"):
        assert path.stem in TEXT, path


def test_architecture_names_files_and_symbols_that_exist() -> None:
    words = re.findall(r"`([^`\n]+)`", (ROOT / "docs/architecture.md").read_text())
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    paths = [word for word in words if re.fullmatch(r"[\w./]+\.(py|yml)", word) and "name" not in word]
    symbols = [word for word in words if re.fullmatch(r"[A-Z]\w+|[a-z]+_[a-z_]+", word)]
    assert len(paths) > 15
    assert len(symbols) > 30
    assert [path for path in paths if not ((ROOT / path).exists() or (ROOT / "src/ddpm_kedro" / path).exists())] == []
    assert [symbol for symbol in symbols if not re.search(rf"\b{symbol}\b", source)] == []


def test_documented_log_lines_exist() -> None:
    constants = [text for text in messages().splitlines() if len(re.sub(r"%[-+.,\d]*[a-z]|…|\W", "", text)) > 5]
    escaped = [re.compile(re.sub(r"%[-+.,\d\\]*[a-z]|…", ".*", re.escape(text))) for text in set(constants)]
    lines = re.findall(r"^\d\d:\d\d:\d\dZ (?:WARNING: )?(.*)", TEXT, re.MULTILINE)
    assert len(lines) > 10
    missing = [line for line in lines if not any(text.fullmatch(line) for text in escaped)]
    assert [line for line in missing if not COMPOSED.match(line)] == []
