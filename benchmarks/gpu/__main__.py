"""``python -m benchmarks.gpu``: measure what a GPU can tell in nine minutes. ``make gpu`` calls it.

Every part is a process with a time limit. What it measures is written at once into results.json and summary.md, so that
whatever ends the run, and whenever, what came before is kept.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import environment
from benchmarks.gpu.plan import PARTS, PATIENCE, START, WHOLE, Part, chosen
from benchmarks.gpu.runner import LOG, SUMMARY, Preparation, Results, run_parts

BAD_INPUT = 2
COMPILED = "compiled"


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make gpu ARGS=…", description="Measure what a GPU can tell in nine minutes.")
    parser.add_argument("--parts", default="", help=f"some of {','.join(part.name for part in PARTS)}; all by default")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only tries the kit")
    parser.add_argument("--tiny", action="store_true", help="everything as small as it can be: it measures nothing")
    parser.add_argument("--out", type=Path, default=environment.ROOT / "data/benchmarks/gpu", help="of the results")
    parser.add_argument("--kit", type=Path, default=environment.KIT, help="folder that make gpu-kit has made")
    given = parser.parse_args(words)
    try:
        given.parts = chosen([name for name in given.parts.split(",") if name])
    except ValueError as error:
        parser.error(str(error))
    return given


def main(words: list[str]) -> int:
    """Run the parts that are asked for; return 0 if all were done, 1 if not, 2 if nothing could start."""
    start, given = time.monotonic(), parse(words)
    # What ends the kit ends its parts, too: they are sessions of their own.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            environment.unpack(environment.missing_packages(given.kit), Path(scratch))
            env = environment.environment(Path(scratch))
            environment.check_device(given.device, env)
            images = environment.check_images(given.kit, given.parts, given.tiny)
        except environment.NotReadyError as error:
            print(error, file=sys.stderr)
            return BAD_INPUT
        given.out.mkdir(parents=True, exist_ok=True)
        asked = " ".join(["make gpu", *([f'ARGS="{" ".join(words)}"'] if words else [])])
        results = Results(given.out, PARTS, asked)
        options = ["--device", given.device, *(["--tiny"] if given.tiny else []), "--out", str(given.out)]
        options += [] if images is None else ["--images", str(images)]

        def command(part: Part, rows: Path, *more: str) -> list[str]:
            return [sys.executable, "-m", "benchmarks.gpu.part", part.name, *options, "--rows", str(rows), *more]

        with (given.out / LOG).open("w") as log:
            last = given.parts[-1]
            prepare = command(last, Path(scratch, "prepared.jsonl"), "--prepare") if last.name == COMPILED else None
            preparation = Preparation(prepare, env, environment.ROOT, log)
            try:
                limits = Limits(given, start)
                good = run_parts(given.parts, command, results, preparation, limits, Path(scratch))
            finally:
                preparation.end()
        print(f"\n{(given.out / SUMMARY).read_text()}\n{time.monotonic() - start:.0f} s; all of it: {given.out}")
    return 0 if good else 1


class Limits:
    """Seconds that each part may take, so that all end when the plan says; the last one may use what is left."""

    def __init__(self, given: Any, start: float) -> None:
        whole = WHOLE if given.parts == PARTS else START + sum(part.limit for part in given.parts)
        self.last, self.patience = given.parts[-1], PATIENCE if given.tiny else 1.0
        self.end = start + whole * self.patience

    def __call__(self, part: Part) -> float:
        """Return the limit of a part that starts now."""
        left = max(self.end - time.monotonic(), 1.0)
        return left if part is self.last else min(part.limit * self.patience, left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
