"""A write that fails, or a kill at it, is mended by the same command: a short version of ``make soak``."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_writes_that_fail_are_mended_by_the_same_command() -> None:
    command = [sys.executable, "-m", "tests.faults", "--every", "140", "--first", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = {
        line.split(": ")[0]: int(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith("writes")
    }
    assert counts.keys() == {"disk full", "permission", "cross-device", "kill"}
    assert counts["kill"] > 200
    assert counts["cross-device"] == 3  # both checkpoints of the earlier run, and what is kept of this one
