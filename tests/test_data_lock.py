"""One writer per data folder."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from ddpm_kedro import data_lock
from ddpm_kedro.cli import cli
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import UserError
from tests.conftest import Project

HOLDER = """
import os, sys, time
from pathlib import Path
from ddpm_kedro.data_lock import hold_data_folder
with hold_data_folder(Path(sys.argv[1])):
    if sys.argv[2] == "worker" and not os.fork():
        time.sleep(60)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Hold the lock of a folder in another process, which ends with the block."""
    command = [sys.executable, "-c", HOLDER, str(folder), *(arguments or ("plain",))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def is_free(folder: Path) -> bool:
    """Whether this process can take the lock."""
    try:
        with hold_data_folder(folder):
            return True
    except UserError:
        return False


def write_record(folder: Path, age: float = 0.0, **values: object) -> Path:
    record = folder / data_lock.RECORD
    content = {"host": "elsewhere", "boot": "another", "process": 7, "command": "kedro run", "since": "12:00"} | values
    folder.mkdir(exist_ok=True)
    record.write_text(json.dumps(content))
    os.utime(record, (time.time() - age,) * 2)
    return record


def test_a_second_process_is_rejected_with_the_holder_and_what_to_do(tmp_path: Path) -> None:
    with held(tmp_path / "data", "use.dataset=folder,dataset.path=https://me:secret@example.org") as holder:
        with pytest.raises(UserError) as why, hold_data_folder(tmp_path / "data"):
            pass
        for words in (f"process {holder.pid} on ", "use.dataset=…", "DDPM_KEDRO_WAIT=600", "docs/configuration.md"):
            assert words in str(why.value)
        assert "secret" not in str(why.value) + (tmp_path / "data/.lock.json").read_text()
    assert is_free(tmp_path / "data")


def test_the_lock_of_a_killed_process_is_free_while_its_forked_workers_live(tmp_path: Path) -> None:
    with held(tmp_path, "worker") as holder:
        worker = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        holder.kill()
        holder.wait()
        try:
            assert is_free(tmp_path)
            os.kill(worker, 0)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_second_process_waits_if_the_environment_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_KEDRO_WAIT", "60")
    with held(tmp_path) as holder:
        assert holder.stdin is not None
        Thread(target=lambda: (time.sleep(0.3), holder.stdin.close())).start()  # type: ignore[union-attr]
        assert is_free(tmp_path)


def test_an_invalid_wait_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_KEDRO_WAIT", "long")
    with pytest.raises(UserError, match="DDPM_KEDRO_WAIT=long is not a number"), hold_data_folder(tmp_path):
        pass


def test_the_lock_is_reentrant_in_a_thread_and_excludes_other_threads(tmp_path: Path) -> None:
    found = []
    with hold_data_folder(tmp_path), hold_data_folder(tmp_path):
        thread = Thread(target=lambda: found.append(is_free(tmp_path)))
        thread.start()
        thread.join()
        command = [sys.executable, "-c", HOLDER, str(tmp_path), "plain"]
        other = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert found == [False]
    assert "is in use by process" in " ".join(other.stderr.split())
    assert is_free(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_fresh_record_of_another_host_holds_the_lock_and_a_stale_one_does_not(tmp_path: Path) -> None:
    write_record(tmp_path, age=50)
    with pytest.raises(UserError, match="in use by process 7 on elsewhere"), hold_data_folder(tmp_path):
        pass
    write_record(tmp_path, age=70)
    assert is_free(tmp_path)
    write_record(tmp_path, boot=data_lock._boot())  # of a process of this host that was killed
    assert is_free(tmp_path)


def test_the_record_is_renewed_while_the_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_lock, "RENEW", 0.01)
    with hold_data_folder(tmp_path):
        record = tmp_path / data_lock.RECORD
        os.utime(record, (0, 0))
        end = time.monotonic() + 120
        while record.stat().st_mtime < 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert record.stat().st_mtime > 1


def test_without_file_locks_there_is_one_warning_and_the_record_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert is_free(tmp_path)
    [warning] = caplog.messages
    assert warning.endswith("(No locks available): start one run at a time in it.")
    write_record(tmp_path, boot=data_lock._boot())
    assert not is_free(tmp_path)


def test_a_mount_with_local_locks_gives_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 2 {os.major(device)}:{os.minor(device)} / {tmp_path} rw - nfs host:/x rw,vers=3,local_lock=all\n"
    )
    monkeypatch.setattr(data_lock, "MOUNTS", mounts)
    assert is_free(tmp_path)
    assert ["(local_lock=all)" in message for message in caplog.messages] == [True]


def test_only_rank_0_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with hold_data_folder(tmp_path / "data"):
        assert not (tmp_path / "data").exists()


KINDS = {
    "ingest": ["run", "--pipelines", "data_ingestion"],
    "train": ["run", "--pipelines", "model_training"],
    "sample": ["run", "--pipelines", "sampling"],
    "evaluate": ["run", "--pipelines", "evaluation"],
    "report": ["run", "--pipelines", "reporting"],
    "restart": ["runs", "restart"],
    "prune": ["runs", "prune", "--keep", "0", "--yes"],
    "sweep": ["sweep", "training.seed=1,2"],
}


def in_project(project: Project, *arguments: str) -> str:
    from kedro.framework.cli.project import run  # noqa: PLC0415

    command = [*arguments, "--env", "smoke"]
    if command[0] == "run":
        return CliRunner().invoke(run, command[1:]).output
    return CliRunner().invoke(cli, command, obj=bootstrap_project(project.folder)).output


def test_writers_are_rejected_while_another_process_writes_and_readers_are_not(
    project: Project, smoke_data: Path
) -> None:
    project.adopt(smoke_data)
    before = {path: path.read_bytes() for path in project.data.rglob("*") if path.is_file()}
    with held(project.data):
        for kind, arguments in KINDS.items():
            message = in_project(project, *arguments).splitlines()[-1]
            assert message.startswith(f"Error: The data folder {project.data} is in use by process "), kind
        [run] = (project.data / "runs").iterdir()
        assert run.name in in_project(project, "runs", "list")
        assert "64 images" in in_project(project, "runs", "watch", "--once")
    after = {path: path.read_bytes() for path in project.data.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == {path: content for path, content in before.items() if path.name != ".lock"}


def test_ctrl_c_in_a_node_frees_the_lock(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddpm_kedro.ingestion.small_sets.checksums", interrupt)
    assert "Aborted!" in project.kedro_run().output
    assert data_lock._holders == {}
    assert not (project.data / data_lock.RECORD).exists()
