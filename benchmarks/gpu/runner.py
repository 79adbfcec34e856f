"""Run the parts one after another, each in a process with a time limit, and save their measurements at once.

This module imports only the standard library: it runs before the kit's packages are on the path.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.plan import Part
from benchmarks.gpu.summary import summarise

RESULTS, SUMMARY, LOG = "results.json", "summary.md", "log.txt"
DONE, FAILED, LATE, RUNNING = "done", "failed", "time limit", "cut off"
INTERVAL = 0.2  # seconds between two looks at a part
LAST_WRITES = 20.0  # seconds that compilers get to finish a file
Command = Callable[[Part, Path], Sequence[str]]
"""The command that runs a part and appends its rows to a file."""


class Results:
    """The measurements of all parts, in ``results.json`` and ``summary.md``; both are rewritten after each row.

    If a part runs again, its new results replace its old ones; the other parts stay.
    """

    def __init__(self, folder: Path, plan: Sequence[Part], command: str) -> None:
        self.folder, self.plan, self.command = folder, plan, command
        file = folder / RESULTS
        self.parts: dict[str, Any] = json.loads(file.read_text())["parts"] if file.exists() else {}

    def update(self, part: Part, status: str, seconds: float, limit: float, lines: list[dict[str, Any]]) -> None:
        """Save the rows that a part has written so far."""
        found: dict[str, Any] = {"status": status, "seconds": round(seconds, 1), "limit": round(limit, 1), "reason": ""}
        found |= {"command": self.command, "date": date.today().isoformat(), "rows": []}
        for line in lines:
            found |= line.get("about", {})
            found["rows"] += [line["row"]] if "row" in line else []
            found["reason"] = line.get("failed", found["reason"])
        if status == FAILED and not found["reason"]:
            found["reason"] = "The process ended without a reason: see the log."
        if status == LATE:
            found["reason"] = f"The limit of {limit:.0f} s was over."
        self.parts[part.name] = found
        self.save()

    def save(self) -> None:
        """Write both files atomically."""
        ordered = {part.name: self.parts[part.name] for part in self.plan if part.name in self.parts}
        _replace(self.folder / RESULTS, json.dumps({"parts": ordered}, indent=1) + "\n")
        _replace(self.folder / SUMMARY, summarise(ordered, self.plan))


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)


@dataclass
class Preparation:
    """A process that fills the compiler's caches in the background, and sleeps while a part is timed.

    Attributes:
        command: of the process; None for none.
        log: file of its output.
    """

    command: Sequence[str] | None
    env: dict[str, str]
    cwd: Path
    log: IO[str]
    process: "subprocess.Popen[str] | None" = None

    def work(self) -> None:
        """Start or continue."""
        if self.process is not None:
            _signal(self.process, signal.SIGCONT)
        elif self.command is not None:
            self.process = _start(self.command, self.env, self.cwd, self.log)

    def sleep(self) -> None:
        """Leave the machine to a part that is timed."""
        if self.process is not None:
            _signal(self.process, signal.SIGSTOP)

    def end(self) -> None:
        """End the process; its results are in the caches.

        Compilers that it has started may finish writing: a partial file in a cache would be loaded later.
        """
        if self.process is not None:
            self.process.terminate()
            _signal(self.process, signal.SIGCONT)
            self.process.wait()
            until = time.monotonic() + LAST_WRITES
            while _lives(self.process) and time.monotonic() < until:
                time.sleep(INTERVAL)
            _kill(self.process)
        self.command = self.process = None


def run_parts(
    parts: Sequence[Part],
    command: Command,
    results: Results,
    preparation: Preparation,
    limits: Callable[[Part], float],
    scratch: Path,
) -> bool:
    """Run the parts in order; return whether all of them were done.

    Args:
        parts: in the order of the plan.
        command: of each part.
        results: keeps the rows.
        preparation: works beside the parts that are not timed, and ends before the last one.
        limits: returns the seconds that a part may take, when it starts.
        scratch: an empty folder.
    """
    good = True
    for part in parts:
        preparation.end() if part is parts[-1] else preparation.sleep() if part.timed else preparation.work()
        limit, start = limits(part), time.monotonic()
        rows = scratch / f"{part.name}.jsonl"
        _heading(preparation.log, part)
        process = _start(command(part, rows), preparation.env, preparation.cwd, preparation.log)
        try:
            status = RUNNING
            for status in _watch(process, start + limit):
                results.update(part, status, time.monotonic() - start, limit, read_lines(rows))
        finally:
            _kill(process)
        seconds = time.monotonic() - start
        print(f"{part.name}: {status}, {seconds:.1f} s of {limit:.0f}", flush=True)
        good &= status == DONE
    return good


def _heading(log: IO[str], part: Part) -> None:
    log.write(f"\n===== {part.name} =====\n")
    log.flush()


def _watch(process: "subprocess.Popen[str]", until: float) -> Iterator[str]:
    """Yield the status of a process: running, some times, and then how it ended."""
    while process.poll() is None:
        yield RUNNING
        if time.monotonic() > until:
            yield LATE
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERVAL)
    yield FAILED if process.returncode else DONE


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines that a part has written so far."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _start(command: Sequence[str], env: dict[str, str], cwd: Path, log: IO[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True
    )


def _signal(process: "subprocess.Popen[str]", number: int) -> None:
    """Send a signal to a process and to all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _lives(process: "subprocess.Popen[str]") -> bool:
    """Return whether a process, or one that it has started, still exists."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(process: "subprocess.Popen[str]") -> None:
    _signal(process, signal.SIGKILL)
    process.wait()
