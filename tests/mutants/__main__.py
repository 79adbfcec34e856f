"""Plant every known bug in a copy of the project, one at a time, and check that the fast tests fail.

``python -m tests.mutants [WORD …]`` plants only the mutants whose names contain one of the words.

The fast tests (not marked slow) run in two rounds: first the tests of the changed module and of its folder, which need
not be one of ``FOLDERS``; if all of them pass, the tests of the other ``FOLDERS``. A round ends after ``MAXFAIL``
failures. ``APART`` does not run.
The exit status is 1 if no test catches a bug.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.bugs import MUTANTS
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "conf", "pyproject.toml")
FOLDERS = ("diffusion", "models", "training", "ingestion", "images", "datasets", "pipelines")
HEALTHY = Mutant("no bug at all")
MAXFAIL = 3
WIDTH = max(len(mutant.name) for mutant in MUTANTS)
SECONDS = 3600  # after this time a test run counts as hung
PYTEST = ("-m", "pytest", "-q", "-rfE", "--tb=no", "--no-cov", "-p", "no:cacheprovider", "-p", "no:xdist")
APART = "tests/training/test_loader.py"  # its worker processes take ten seconds, and it catches none of the bugs


def failures(mutant: Mutant) -> list[str]:
    """Return the fast tests that fail with this bug, at most ``MAXFAIL``.

    Raises:
        RuntimeError, TimeoutExpired: if the tests did not run to their end.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        copy_project(copy)
        mutant.plant(copy)
        return next(filter(None, (run_tests(copy, tests) for tests in selection_for(mutant))), [])


def run_tests(project: Path, tests: Sequence[str]) -> list[str]:
    """Return the names of these tests that fail in the project in this folder."""
    command = [
        sys.executable,
        *PYTEST,
        "-m",
        "not slow and not container",
        f"--maxfail={MAXFAIL}",
        f"--ignore={APART}",
        *tests,
    ]
    environment = os.environ | {"PYTHONPATH": str(project / "src"), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("CI", None)  # it turns skipped tests into errors
    result = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = re.findall(r"^(?:FAILED|ERROR) tests/\S+?::(\S+)", result.stdout, re.MULTILINE)
    if result.returncode != (1 if found else 0):
        raise RuntimeError(f"pytest ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return found


def copy_project(target: Path) -> None:
    """Copy the files that the tests need, without compiled and personal ones."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        else:
            shutil.copy(ROOT / name, target)


def selection_for(mutant: Mutant) -> list[list[str]]:
    """Return the tests near the bug, the tests of the changed module first, and then the folders of all others."""
    files = [Path(edit.file) for edit in mutant.edits]
    own = [f"tests/{file.parent}/test_{file.stem}.py" for file in files]
    near = {file.parts[0] for file in files}
    tests = [test for test in dict.fromkeys(own) if (ROOT / test).exists()]
    tests += [f"tests/{folder}" for folder in sorted(near) if (ROOT / "tests" / folder).is_dir()]
    others = [f"tests/{folder}" for folder in FOLDERS if folder not in near]
    return [tests, others] if tests else [others]


def judge(mutant: Mutant) -> tuple[bool, str]:
    """Return whether the tests catch a bug, and its row."""
    try:
        found = failures(mutant)
    except (RuntimeError, subprocess.TimeoutExpired) as error:  # the other bugs are still tested
        return False, f"{mutant.name:<{WIDTH}}   ?  NOT TESTED: {error}"
    return bool(found), row(mutant.name, found)


def row(name: str, found: Sequence[str]) -> str:
    """Return the row of a bug: its name, the number of tests that caught it, and their names."""
    count = f"{len(found)}+" if len(found) == MAXFAIL else len(found)
    tests = dict.fromkeys(test.split("[")[0] for test in found)  # without their parameters
    return f"{name:<{WIDTH}} {count:>3}  {', '.join(tests) or 'SURVIVES'}"


def main(words: Sequence[str]) -> int:
    """Return the exit status: 0 if every bug is caught and the tests pass without a bug."""
    mutants = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    if not mutants:
        raise ValueError(f"no bug has one of these words in its name: {', '.join(words)}")
    for mutant in mutants:
        mutant.check(ROOT)
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            healthy, judged = pool.submit(failures, HEALTHY), pool.map(judge, mutants)
            if broken := healthy.result():
                raise RuntimeError(f"with {HEALTHY.name}, these tests fail: {', '.join(broken)}")
            for caught, text in judged:
                print(text, flush=True)
                missed += not caught
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"{len(mutants) - missed} of {len(mutants)} bugs are caught by the fast tests.")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, RuntimeError, subprocess.TimeoutExpired) as error:
        sys.exit(f"error: {error}")
