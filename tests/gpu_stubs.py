"""Parts of the GPU kit that are a few lines of Python each."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.environment import ROOT
from benchmarks.gpu.plan import Part
from benchmarks.gpu.runner import Preparation, Results, run_parts

STUB = """
import json, sys, time
def write(**line):
    with open(sys.argv[1], "a") as file: file.write(json.dumps(line) + "\\n")
write(about={"machine": {"cpu": "A CPU", "cores": 2, "gpu": "A GPU"}, "versions": {"torch": "2.99"}})
write(row={"what": "first", "value": 1})
"""


def stub(name: str, limit: float = 60, timed: bool = True) -> Part:
    return Part(name, f"Part {name}", limit, timed)


def run_stubs(folder: Path, bodies: dict[Part, str], prepare: Sequence[str] | None = None) -> bool:
    """Run parts whose processes execute these lines of Python."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    results = Results(folder, list(bodies), "make gpu")
    with (folder / "log.txt").open("w") as log:
        preparation = Preparation(prepare, dict(os.environ), ROOT, log)
        try:
            command = lambda part, rows: [sys.executable, "-c", STUB + bodies[part], str(rows)]  # noqa: E731
            return run_parts(list(bodies), command, results, preparation, lambda part: part.limit, scratch)
        finally:
            preparation.end()
