"""Take all measurements of a GPU in nine minutes: ``python -m benchmarks.gpu``, which ``make gpu`` calls.

Each part is a process with a time limit. Its measurements are written to results.json and summary.md at once, so that
they are kept whenever and however the run ends.
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
    parser = argparse.ArgumentParser(
        prog="make gpu ARGS=…", description="Take all measurements of a GPU in nine minutes."
    )
    parser.add_argument("--parts", default="", help=f"some of {','.join(part.name for part in PARTS)}; all by default")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only tries the kit")
    parser.add_argument(
        "--tiny", action="store_true", help="run everything as small as possible; the results mean nothing"
    )
    parser.add_argument(
        "--out", type=Path, default=environment.ROOT / "data/benchmarks/gpu", help="folder of the results"
    )
    parser.add_argument("--kit", type=Path, default=environment.KIT, help="folder that make gpu-kit writes")
    arguments = parser.parse_args(words)
    try:
        arguments.parts = chosen([name for name in arguments.parts.split(",") if name])
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(words: list[str]) -> int:
    """Run the selected parts; return 0 if all were done, 1 if not, 2 if nothing could start."""
    start, arguments = time.monotonic(), parse(words)
    # The parts are separate sessions: a signal to the kit must end them too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            environment.unpack(environment.missing_packages(arguments.kit), Path(scratch))
            env = environment.environment(Path(scratch))
            environment.check_device(arguments.device, env)
            images = environment.check_images(arguments.kit, arguments.parts, arguments.tiny)
        except environment.NotReadyError as error:
            print(error, file=sys.stderr)
            return BAD_INPUT
        arguments.out.mkdir(parents=True, exist_ok=True)
        command_line = " ".join(["make gpu", *([f'ARGS="{" ".join(words)}"'] if words else [])])
        results = Results(arguments.out, PARTS, command_line)
        options = ["--device", arguments.device, *(["--tiny"] if arguments.tiny else []), "--out", str(arguments.out)]
        options += [] if images is None else ["--images", str(images)]

        def command(part: Part, rows: Path, *more: str) -> list[str]:
            return [sys.executable, "-m", "benchmarks.gpu.part", part.name, *options, "--rows", str(rows), *more]

        with (arguments.out / LOG).open("w") as log:
            last = arguments.parts[-1]
            prepare = command(last, Path(scratch, "prepared.jsonl"), "--prepare") if last.name == COMPILED else None
            preparation = Preparation(prepare, env, environment.ROOT, log)
            try:
                limits = Limits(arguments, start)
                good = run_parts(arguments.parts, command, results, preparation, limits, Path(scratch))
            finally:
                preparation.end()
        print(f"\n{(arguments.out / SUMMARY).read_text()}\n{time.monotonic() - start:.0f} s; results: {arguments.out}")
    return 0 if good else 1


class Limits:
    """Return the seconds of each part, so that all end within the plan; the last one may use the rest."""

    def __init__(self, arguments: Any, start: float) -> None:
        whole = WHOLE if arguments.parts == PARTS else START + sum(part.limit for part in arguments.parts)
        self.last, self.patience = arguments.parts[-1], PATIENCE if arguments.tiny else 1.0
        self.end = start + whole * self.patience

    def __call__(self, part: Part) -> float:
        """Return the limit of a part that starts now."""
        left = max(self.end - time.monotonic(), 1.0)
        return left if part is self.last else min(part.limit * self.patience, left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
