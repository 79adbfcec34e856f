"""The project's tests that are parametrised over devices, on the device."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.gpu.environment import ROOT
from benchmarks.gpu.settings import Settings
from benchmarks.training.results import Row

FIXTURE = "device: torch.device"
OUTCOMES = ("failure", "error", "skipped")


def measure(settings: Settings) -> Iterator[Row]:
    """Yield the counts, then a row per test that did not pass.

    Raises:
        RuntimeError: if no test was run.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "junit.xml")
        subprocess.run(command(settings, report), cwd=ROOT, check=False)
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314
    if not cases:
        raise RuntimeError("pytest has run no test: see the log.")
    found = [(case, outcome) for case in cases for outcome in case if outcome.tag in OUTCOMES]
    counts = {kind: sum(outcome.tag == kind for _, outcome in found) for kind in OUTCOMES}
    failed = counts["failure"] + counts["error"]
    yield {"passed": len(cases) - len(found), "failed": failed, "skipped": counts["skipped"]}
    for case, outcome in found:
        name = f"{case.get('classname')}::{case.get('name')}"
        yield {"test": name, "outcome": outcome.tag, "message": (outcome.get("message") or "").partition("\n")[0]}


def command(settings: Settings, report: Path) -> list[str]:
    """Return the command that runs the tests; a tiny run takes only the tests of the metrics."""
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if FIXTURE in path.read_text())
    if settings.tiny:
        files = [path for path in files if path.parent.name == "metrics"]
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "not slow", f"--junit-xml={report}"]
    workers = ["-n", str(settings.sizes.test_workers)] if settings.sizes.test_workers > 1 else []
    return [sys.executable, "-m", "pytest", *options, *workers, "-k", settings.device, *map(str, files)]
