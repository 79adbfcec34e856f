"""Atomic writing: complete or not at all, with the modes of the umask, beside other writers."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from kedro.io import DatasetError
from kedro_datasets.json import JSONDataset
from kedro_datasets.partitions import PartitionedDataset
from kedro_datasets.plotly import JSONDataset as PlotDataset
from kedro_datasets.text import TextDataset
from PIL import Image

from ddpm_kedro import atomic
from ddpm_kedro.atomic import atomic_write, copy, move, replaced_folder
from ddpm_kedro.datasets.catalog import AtomicCatalog
from ddpm_kedro.models.weights import write_tensors

HOLD = """
import os, pathlib, signal, sys
from ddpm_kedro.atomic import atomic_write, replaced_folder
os.getpid = lambda: 1
with {"file": atomic_write, "folder": replaced_folder}[sys.argv[1]](pathlib.Path(sys.argv[2])):
    print("writing", flush=True)
    signal.pause()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Start a process that is writing and has the process number 1."""
    started = []

    def start(kind: str, path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, kind, path], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_writer_are_removed_and_files_of_a_living_writer_are_not(
    kind: str, tmp_path: Path, writer: Callable[[str, Path], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in two containers that share a folder: each writer is process 1."""
    path = tmp_path / "result"
    process = writer(kind, path)
    before = set(tmp_path.iterdir())
    write_as_process_1(path, monkeypatch)
    assert set(tmp_path.iterdir()) == before | {path}
    process.kill()
    process.wait()
    write_as_process_1(path, monkeypatch)
    assert os.listdir(tmp_path) == ["result"]


def write_as_process_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write as a process that has just started."""
    atomic._remove_leftovers.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        with atomic_write(path) as file:
            file.write(b"whole")


def test_without_file_locks_no_file_of_another_writer_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    (tmp_path / ".file.0123.writing").write_text("of another host")
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == [".file.0123.writing", "file"]


def test_a_folder_that_its_writer_could_not_remove_is_removed_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
        with replaced_folder(tmp_path / "model") as new:
            (new / "weights").write_text("new")
    assert len(os.listdir(tmp_path)) == 2
    atomic._remove_leftovers.cache_clear()
    with atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "model"]


def test_a_hidden_file_of_another_program_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / ".parameters.json.swp").write_text("of an editor")
    with atomic_write(tmp_path / "parameters.json") as file:
        file.write(b"{}")
    assert (tmp_path / ".parameters.json.swp").exists()


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_modes_follow_the_umask(mask: int, file_mode: int, folder_mode: int, tmp_path: Path) -> None:
    import torch  # noqa: PLC0415

    old = os.umask(mask)
    try:
        with replaced_folder(tmp_path / "model") as new:
            write_tensors({"w": torch.ones(3)}, new / "model.safetensors")
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(old)
    paths = [tmp_path / name for name in ("model/model.safetensors", "file", "model")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [file_mode, file_mode, folder_mode]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("before", ["folder", "file", "nothing", "link"])
def test_a_folder_replaces_a_folder_a_file_or_a_link(
    before: str, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: object())
    path, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    match before:
        case "folder":
            path.mkdir()
            (path / "old").write_text("old")
        case "file":
            path.write_text("old")
        case "link":
            (elsewhere / "model").mkdir(parents=True)
            path.symlink_to(elsewhere / "model")
    with replaced_folder(path) as new:
        (new / "weights").write_text("new")
    assert os.listdir(path) == ["weights"]
    assert path.is_symlink() == (before == "link")
    assert sorted(os.listdir(tmp_path)) == sorted(["model", *(["elsewhere"] if before == "link" else [])])


def test_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "file").symlink_to(tmp_path / "disk/file")
    for content in (b"old", b"new"):
        with atomic_write(tmp_path / "file") as file:
            file.write(content)
    assert (tmp_path / "disk/file").read_bytes() == b"new"
    assert (tmp_path / "file").is_symlink()


def test_the_error_of_a_full_disk_names_the_final_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as found, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert found.value.filename == str(tmp_path / "file")


def across_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each folder look like a disk of its own."""
    for name in ("replace", "rename", "link"):
        known = getattr(os, name)

        def checked(source: Any, target: Any, known: Callable[..., Any] = known, **kwargs: Any) -> Any:
            if Path(source).parent.name != Path(target).parent.name and ".writing" not in str(source):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
            return known(source, target, **kwargs)

        monkeypatch.setattr(os, name, checked)


def test_a_move_to_another_disk_is_an_atomic_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "one/file", tmp_path / "two/file"
    source.parent.mkdir()
    source.write_text("content")
    os.utime(source, (1e9, 1e9))
    across_disks(monkeypatch)
    move(source, target)
    assert target.read_text() == "content"
    assert target.stat().st_mtime == 1e9
    assert not source.exists()
    assert os.listdir(target.parent) == ["file"]


def test_a_folder_is_copied_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "model", tmp_path / "runs/model"
    (source / "deep").mkdir(parents=True)
    (source / "deep/weights").write_text("new")
    (source / "config").write_text("new")
    copy(source, target)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["config", "deep", "deep/weights"]
    (source / "config").write_text("newer")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        copy(source, target)
    assert (target / "config").read_text() == "new"
    assert os.listdir(tmp_path / "runs") == ["model"]


class Unwritable:
    """Neither JSON nor text nor a plot: writing fails halfway."""

    def write_json(self, file: Any, **_: Any) -> None:
        file.write('{"half": ')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


KEDROS: dict[str, tuple[Callable[[str], Any], Any, Any]] = {
    "json": (lambda path: JSONDataset(filepath=path), {"loss": 1.5}, {"loss": 1.5, "more": Unwritable()}),
    "plot": (lambda path: PlotDataset(filepath=path), go.Figure(), Unwritable()),
    "text": (lambda path: TextDataset(filepath=path), "whole", Unwritable()),
    "url": (lambda path: JSONDataset(filepath=f"file://{path}"), {"loss": 1.5}, {"loss": 1.5, "more": Unwritable()}),
    "partitions": (
        lambda path: PartitionedDataset(
            path=path,
            dataset="ddpm_kedro.datasets.figure.FigureDataset",
            filename_suffix=".png",
            overwrite=True,
        ),
        {"a": Image.new("L", (4, 4)), "b": Image.new("L", (4, 4))},
        {"a": Image.new("L", (8, 8)), "c": Unwritable()},
    ),
    "partitions that are kept": (
        lambda path: PartitionedDataset(
            path=path, dataset={"type": "json.JSONDataset", "save_args": {"indent": 2}}, filename_suffix=".yml"
        ),
        {"a/x": {"one": 1}, "b/x": {"two": 2}},
        {"a/x": {"one": 2}, "b/x": Unwritable()},
    ),
}


@pytest.mark.parametrize("kind", KEDROS)
def test_a_failed_write_of_kedros_own_datasets_keeps_the_earlier_file(kind: str, tmp_path: Path) -> None:
    make, whole, broken = KEDROS[kind]
    catalog = AtomicCatalog(datasets={"result": make(str(tmp_path / "deep/result"))})
    catalog.save("result", whole)
    catalog.save("result", whole)
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert contents
    with pytest.raises(DatasetError):
        catalog.save("result", broken)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents
    assert os.listdir(tmp_path / "deep") == ["result"]
    assert catalog.load("result")


def test_saving_no_partitions_removes_the_earlier_ones(tmp_path: Path) -> None:
    catalog = AtomicCatalog(datasets={"parts": KEDROS["partitions"][0](str(tmp_path / "parts"))})
    for partitions in ({"a": Image.new("L", (4, 4))}, {}, {}):
        catalog.save("parts", partitions)
        assert catalog.exists("parts") == bool(partitions)
    assert os.listdir(tmp_path) == []


def test_a_dataset_that_appends_keeps_the_earlier_content(tmp_path: Path) -> None:
    dataset = TextDataset(filepath=str(tmp_path / "log"), fs_args={"open_args_save": {"mode": "a"}})
    catalog = AtomicCatalog(datasets={"log": dataset})
    for line in ("one\n", "two\n"):
        catalog.save("log", line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_without_overwrite_partitions_are_added(tmp_path: Path) -> None:
    dataset = PartitionedDataset(path=str(tmp_path / "parts"), dataset="json.JSONDataset", filename_suffix=".json")
    catalog = AtomicCatalog(datasets={"parts": dataset})
    catalog.save("parts", {"a": 1})
    catalog.save("parts", {"b": 2})
    assert {path.stem: json.loads(path.read_text()) for path in (tmp_path / "parts").iterdir()} == {"a": 1, "b": 2}
