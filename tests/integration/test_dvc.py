"""DVC in a repository of its own: stages that are stale run again, and no others."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.forked_kedro import ForkedKedro, forked_kedro

pytestmark = pytest.mark.slow
TRAINING_NODES = "src/ddpm_kedro/pipelines/model_training/nodes.py"
SAMPLING_NODES = "src/ddpm_kedro/pipelines/sampling/nodes.py"
EVERYTHING = ["parameters", "data", "restart", "train", "sample", "evaluate", "report"]


class Repository:
    """The project under git and DVC, with the parameters of the ``smoke`` environment."""

    def __init__(self, folder: Path, scripts: Path, kedro: ForkedKedro) -> None:
        self.folder, self.kedro = folder, kedro
        for name in ("conf", "src", ".dvc"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "local", "tmp"))
        for name in ("pyproject.toml", "dvc.yaml", ".dvcignore", ".gitignore", "README.md"):
            shutil.copy(ROOT / name, folder)
        for name in ("data", "conf/local"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / ".gitkeep").touch()
        shutil.copy(ROOT / "conf/smoke/parameters.yml", folder / "conf/local")
        who = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | who | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def dvc(self, *arguments: str) -> tuple[list[str], str]:
        """Run a command of DVC; return the stages that ran, and the output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, output
        return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE), output

    def stale(self) -> set[str]:
        """Return the stages whose code, parameters or inputs have changed since they ran."""
        output = self.dvc("status", "--json")[1]
        return set(json.loads(output[output.index("{") :]))

    def first_line_of_the_run(self) -> str:
        """Return what a run logs when it starts or resumes, and kill it."""
        process = self.start("repro")
        assert process.stdout is not None
        line = next(line for line in process.stdout if "Run " in line)
        self.kill(process)
        return line

    def change(self, path: str, old: str = "", new: str = "") -> None:
        file = self.folder / path
        file.write_text(file.read_text().replace(old, new) if old else file.read_text() + "\n# changed\n")

    def json(self, path: str) -> Any:
        return json.loads((self.folder / "data" / path).read_text())

    def kill(self, process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.kedro.wait()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder, scripts = tmp_path / "project", tmp_path / "scripts"
    folder.mkdir()
    scripts.mkdir()
    with forked_kedro(scripts) as kedro:
        yield Repository(folder, scripts, kedro)


def test_stale_stages_run_and_no_others(repository: Repository) -> None:
    assert repository.dvc("repro")[0] == EVERYTHING
    assert not re.search(r"^\?\? data|^ M", repository.git("status", "--short"), re.MULTILINE)
    repository.commit()
    repository.change("README.md")
    repository.change("conf/base/parameters.yml")  # a comment
    assert repository.dvc("repro")[0] == ["parameters"]
    assert repository.dvc("repro")[0] == []
    for path, stages in {
        SAMPLING_NODES: {"sample"},
        "src/ddpm_kedro/models/unet.py": {"restart", "train", "sample", "evaluate", "report"},
    }.items():  # all others: tests/test_dvc_stages.py
        content = (repository.folder / path).read_text()
        repository.change(path)
        assert repository.stale() == stages, path
        (repository.folder / path).write_text(content)
    repository.change("conf/base/groups/optimizer/adam.yml", "lr: 3.0e-3", "lr: 2.0e-3")
    assert repository.dvc("repro", "parameters")[0] == ["parameters"]
    assert repository.stale() == {"train"}  # the stages that need its model follow once it has run
    repository.commit()
    ran, _ = repository.dvc("exp", "run", "-S", "conf/base/parameters.yml:use.model=small")
    assert ran == ["parameters", "train", "sample", "evaluate", "report"]
    assert repository.json("06_models/model/config.json")["parameters"]["model"]["blocks_per_level"] == 2
    assert repository.json("06_models/model/config.json")["parameters"]["optimizer"]["lr"] == 2e-3
    repository.dvc("exp", "show")
    assert yaml.safe_load((repository.folder / "conf/base/parameters.yml").read_text())["use"]["model"] == "small"


def test_a_killed_training_run_is_resumed_unless_its_code_has_changed(repository: Repository) -> None:
    local = repository.folder / "conf/local/parameters.yml"
    settings = yaml.safe_load(local.read_text())
    settings["training"] |= {"num_images": 100_000, "checkpoint_interval": 32}
    local.write_text(yaml.safe_dump(settings))
    process = repository.start("repro")
    checkpoint = repository.folder / "data/06_models/checkpoint.pt"
    limit = time.monotonic() + 600
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    repository.kill(process)
    assert re.search(r"Run \w+ resumes after \d+ images", repository.first_line_of_the_run())
    repository.change(TRAINING_NODES)
    assert re.search(r"Run \w+ trains on", repository.first_line_of_the_run())


def test_dvc_outside_of_a_repository_is_an_error(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    command = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "you are not inside of a DVC repository" in done.stderr
