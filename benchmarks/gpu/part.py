"""``python -m benchmarks.gpu.part NAME``: run one part of the kit in this process, and append its rows to a file."""

import argparse
import json
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu.settings import Settings
from benchmarks.training.results import machine, versions


def run(name: str, settings: Settings, rows: Path) -> int:
    """Run a part; return 1 if it failed. Every row is written as soon as it is measured."""
    append(rows, {"about": {"machine": machine(settings.device), "versions": versions()}})
    try:
        measured: Iterable[dict[str, Any]] = import_module(f"benchmarks.gpu.parts.{name}").measure(settings)
        for row in measured:
            append(rows, {"row": row})
            print(row, flush=True)
    except Exception as error:  # whatever it is, it is the reason why this part has no more rows
        traceback.print_exc()
        append(rows, {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"})
        return 1
    return 0


def append(file: Path, line: dict[str, Any]) -> None:
    """Append a line in one write, so that a reader never sees half of it."""
    with file.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def parse(words: list[str]) -> tuple[str, Settings, Path]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.part", description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    given = parser.parse_args(words)
    return given.name, Settings(given.device, given.tiny, given.images, given.out, given.prepare), given.rows


if __name__ == "__main__":
    sys.exit(run(*parse(sys.argv[1:])))
