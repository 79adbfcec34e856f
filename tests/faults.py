"""Break the writes of the main job, one at a time, and compare the results after running the same command again.

``make soak ARGS="--faults 1"`` breaks each write, which takes two hours; the tests break a few.
"""

import argparse
import csv
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Project

PARAMETERS = (
    "training.num_images=32,training.report_interval=16,training.checkpoint_interval=16,training.preview_images=4,"
    "training.seed={seed},sampling.num_images=10,evaluation.fit_images=64,tracking.mode=disabled"
)
KINDS = ("disk full", "permission", "cross-device", "kill")
WRITES = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}
TIMED = ("metrics.json", "report.html", "run.log", "run.log.1", "sampling_report.json", "training_history.csv")
MEASURED = ("images_per_second", "seconds")
COUNTED = "Writes counted:"


class Fault:
    """Count the writes below a folder, and break one of them.

    Python reports each write before it happens. An audit hook cannot be removed, so each process has its own.

    Args:
        folder: the only folder whose writes are counted and broken.
        kind: the kind of fault; after ``disk full``, no file can grow any more.
        number: the index of the write to break; None breaks none.
    """

    def __init__(self, folder: Path, kind: str, number: int | None) -> None:
        self.folder, self.kind, self.number = f"{folder}{os.sep}", kind, number
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count this event if it is a write, and break it if it is the chosen one."""
        if event not in WRITES or not self._writes(event, arguments):
            return
        self.count += 1
        if self.count - 1 == self.number:
            self._break(str(arguments[0]))

    def _writes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        path = arguments[0]
        if isinstance(path, int) or self._disk(path)[:1] in {"", "."}:  # elsewhere; hidden: a lock and its kind
            return False
        if self.kind == "cross-device":  # as if each folder of the data were a disk of its own
            return event in {"os.rename", "os.link"} and self._disk(path) != self._disk(arguments[1])
        return event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _disk(self, path: Any) -> str:
        """Return the first folder of a path below the data."""
        below = os.path.abspath(os.fsdecode(path)).removeprefix(self.folder)
        return "" if os.path.isabs(below) else below.split(os.sep)[0]

    def _break(self, path: str) -> None:
        match self.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "disk full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
            case "permission":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            case "cross-device":
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def run(project: Project, seed: int, *faults: Fault) -> tuple[int, str, list[int]]:
    """Run the main job in a forked copy of this process.

    Returns:
        Its exit status, what it printed, and the number of writes that each fault counted.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.chdir(project.folder)
        status = 1
        for fault in faults:
            sys.addaudithook(fault)
        try:
            status = _main_job(seed)
        except BaseException:
            traceback.print_exc()
        finally:
            print(COUNTED, *(fault.count for fault in faults), flush=True)
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as file:
        output, _, counts = file.read().partition(COUNTED)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended), output, [int(count) for count in counts.split()]


def _main_job(seed: int) -> int:
    from ddpm_kedro.__main__ import main  # noqa: PLC0415

    try:
        main(["--env", "smoke", "--params", PARAMETERS.format(seed=seed)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def check(kind: str, number: int, before: Project, whole: dict[str, Any], folder: Path) -> Iterator[str]:
    """Break one write of the main job, run it again, and yield a line for everything that is wrong."""
    broken = Project(folder)
    shutil.copytree(before.data, broken.data, copy_function=shutil.copy2)
    status, output, _ = run(broken, 1, Fault(broken.data, kind, number))
    expected = {"kill": (-signal.SIGKILL,), "cross-device": (0,)}.get(kind, (0, 1))
    if status not in expected or "Traceback" in output or (status == 1 and "Error: " not in output):
        yield f"exit status {status}: {output[-3000:]}"
    succeeded = status == 0  # only the removal of a temporary folder was broken: the next save there removes it
    status, output, _ = run(broken, 1)
    if status:
        yield f"the same command once more: exit status {status}: {output[-3000:]}"
        return
    after = contents(broken.data)
    names = sorted(whole.keys() ^ after.keys())
    names = [name for name in names if not (succeeded and name.endswith(".writing.folder"))]
    yield from (f"{name} is {'left over' if name in after else 'missing'}" for name in names)
    yield from (f"{name} differs" for name in whole.keys() & after.keys() if whole[name] != after[name])


def contents(folder: Path) -> dict[str, Any]:
    """Return the content of each file in a folder, by name, without durations."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith(".") or path.name.startswith("run.log"):  # a lost log is no error
            continue
        if path.name == "training_history.csv":
            rows = csv.DictReader(path.read_text().splitlines())
            found[name] = [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]
        elif path.suffix == ".pt":
            found[name] = _checkpoint(path)
        else:
            found[name] = path.read_bytes() if path.is_file() and path.name not in TIMED else None
    return found


def _checkpoint(path: Path) -> Any:
    import torch  # noqa: PLC0415

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items() if key not in MEASURED}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value

    return plain(torch.load(path, weights_only=True))


def break_writes(kinds: list[str], every: int, first: int) -> Iterator[str]:
    """Break every n-th write of the main job, after another training has finished, and yield what is wrong.

    The kinds begin at different writes, so that a few faults cover different parts of the job.
    """
    import ddpm_kedro.pipelines.evaluation  # noqa: PLC0415
    import ddpm_kedro.pipelines.model_training  # noqa: PLC0415
    import ddpm_kedro.pipelines.reporting  # noqa: F401, PLC0415

    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        before, whole = Project(top / "before"), Project(top / "whole")
        assert run(before, 0)[0] == 0
        shutil.copytree(before.data, whole.data)
        status, output, counts = run(whole, 1, *(Fault(whole.data, kind, None) for kind in kinds))
        assert status == 0, output
        expected = contents(whole.data)
        for index, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
            print(f"{kind}: {count} writes", flush=True)
            start = first + index * every // len(kinds)
            for number in range(start, count, every) if count > every else range(count):
                place = top / f"{kind} {number}"
                for line in check(kind, number, before, expected, place):
                    yield f"{kind} at write {number + 1} of {count}: {line}"
                shutil.rmtree(place)


def main() -> None:
    """Break writes, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="Kind of fault; all by default.")
    parser.add_argument("--every", type=int, default=1, help="Break only every n-th write.")
    parser.add_argument("--first", type=int, default=0, help="Start at this write.")
    arguments = parser.parse_args()
    problems = 0
    for problem in break_writes(arguments.kind or list(KINDS), arguments.every, arguments.first):
        problems += 1
        print(problem, flush=True)
    print("The same command mends every fault." if not problems else f"{problems} PROBLEMS")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
