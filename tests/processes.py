"""Run ``python -m MODULE`` in processes that are forked after the imports: importing torch and Kedro takes seconds."""

import atexit
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(  # not the settings: they ask for the rank when they are imported
    [
        "kedro.framework.cli.cli",
        "kedro_datasets.json",
        "kedro_datasets.partitions",
        "kedro_datasets.plotly",
        "kedro_datasets.text",
        "kedro_viz.integrations.kedro.hooks",
        "plotly.graph_objects",
        "torch.distributed.run",
        *(f"ddpm_kedro.datasets.{name}" for name in ("animation", "checkpoint", "diffusers", "figure", "image_store")),
        *(f"ddpm_kedro.pipelines.{name}" for name in ("model_training", "sampling", "evaluation", "reporting")),
    ]
)


class Process:
    """A started command, with the methods of ``subprocess.Popen`` that the tests use.

    Args:
        folder: the working folder of the command.
        words: the module, and its arguments.
        environment: variables in addition to the variables of this process.
        signal_at: words of a log message, and a signal that the command gets when it logs them. A busy machine may run
            this process too late for a signal between two messages.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        environment: Mapping[str, str] | None = None,
        signal_at: tuple[str, signal.Signals] | None = None,
    ) -> None:
        reader, writer = FORKS.Pipe(duplex=False)
        variables = {**os.environ, **(environment or {})}
        self._process = FORKS.Process(target=_run, args=(writer, words, folder, variables, signal_at))
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), errors="replace")  # what the command prints, errors included
        reader.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, or None while the command runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for the end of the command, and return its exit status."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def communicate(self) -> str:
        """Wait for the end of the command, and return its output that was not read yet."""
        with self.stdout:
            rest = self.stdout.read()
        self.wait()
        return rest

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = Process(folder, *words, environment=environment)
    output = process.communicate()
    return subprocess.CompletedProcess(words, process.wait(), output)


def _signal_at(words: str, number: signal.Signals) -> None:
    create = logging.getLogRecordFactory()

    def factory(*args: object, **options: object) -> logging.LogRecord:
        record = create(*args, **options)
        if words in record.getMessage():
            os.kill(os.getpid(), number)
        return record

    logging.setLogRecordFactory(factory)


def _run(
    output: Connection,
    words: tuple[str, ...],
    folder: Path,
    environment: dict[str, str],
    signal_at: tuple[str, signal.Signals] | None,
) -> None:
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]  # the tests are not its parent
    os.fsync = lambda _: None  # as in conftest.py
    if signal_at is not None:
        _signal_at(*signal_at)
    sys.argv = list(words)
    sys.modules.pop(words[0], None)  # else runpy warns
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
