"""Kill a short training again and again, at random moments and in mid-write, and compare its results.

``make soak`` kills it 25 times (``ARGS="--kills 100"``: 100 times); the tests kill it a few times. Then it breaks every
tenth write of the main job (``--faults 1`` breaks every write; see faults.py).
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import Project
from tests.processes import Process, run

PARAMETERS = (
    "training.num_images={images},training.report_interval=80,training.checkpoint_interval=80,training.preview_images=0,"
    "sampling.num_images=20,evaluation.fit_images=64"
)
PIPELINES = "data_ingestion,model_training,sampling"
COMMAND = ("ddpm_kedro", "--env", "smoke", "--pipelines", PIPELINES, "--params")
MEASURED = "images_per_second"
RESULTS = ("06_models/model", "07_model_output/samples.npz", "07_model_output/samples.png")


def soak(kills: int, seed: int, folder: Path, images: int = 2_400) -> list[str]:
    """Train twice, once undisturbed and once with kills, and return a line for everything that is wrong."""
    chance = random.Random(seed)
    whole, killed = Project(folder / "whole"), Project(folder / "killed")
    command = (*COMMAND, PARAMETERS.format(images=images))
    run(whole.folder, *command).check_returncode()
    problems: list[str] = []
    for number in range(kills):
        moment = "mid-write" if number % 2 else "random"
        start = kill_once(command, killed, chance, moment)
        half_written = any((killed.data / "06_models").glob(".checkpoint.pt.*"))
        problems += [f"kill {number + 1}: {line}" for line in leftovers(killed)]
        at = "in the middle of a checkpoint" if half_written else "between checkpoints"
        print(f"kill {number + 1} of {kills}, {at}: {start}", flush=True)
    done = run(killed.folder, *command)
    if done.returncode:
        return [*problems, f"the last run failed: {done.stdout[-4000:]}"]
    return problems + list(differences(whole, killed))


def kill_once(command: tuple[str, ...], project: Project, chance: random.Random, moment: str) -> str:
    """Start a training, kill it at a moment, and return the log line that says where it started."""
    process = Process(project.folder, *command)
    start = ""
    for line in process.stdout:
        start = line.strip()
        if any(words in line for words in ("resumes after", " trains on ", "is already trained", "is up to date")):
            break
    threading.Thread(target=process.stdout.read, daemon=True).start()  # else the training would wait for a reader
    if moment == "mid-write":
        while not any((project.data / "06_models").glob(".checkpoint.pt.*")) and process.poll() is None:
            pass
    else:
        time.sleep(chance.uniform(0, 1.2))
    process.kill()
    process.wait()
    return start


def leftovers(project: Project) -> Iterator[str]:
    """Yield a line for each file that cannot be read after a kill."""
    from ddpm_kedro.datasets.checkpoint import CheckpointDataset  # noqa: PLC0415  torch takes seconds

    for path in [project.data / "06_models/checkpoint.pt", *project.data.glob("runs/*/checkpoints/*.pt")]:
        if path.exists():
            try:
                CheckpointDataset(filepath=str(path), archive=str(project.data / "runs")).load()
            except Exception as error:
                yield f"{path.name}: {error}"
    history = project.data / "08_reporting/training_history.csv"
    if history.exists():
        widths = {len(row) for row in csv.reader(history.open())}
        if len(widths) != 1:
            yield f"{history.name} is half written"


def differences(whole: Project, killed: Project) -> Iterator[str]:
    """Yield a line for each result that is not equal to the byte; the speed in the history may differ."""
    for name in RESULTS:
        one, other = whole.data / name, killed.data / name
        files = [(one, other)] if one.is_file() else [(file, other / file.name) for file in one.iterdir()]
        for here, there in files:
            if not there.exists() or here.read_bytes() != there.read_bytes():
                yield f"{there.relative_to(killed.data)} differs"
    histories = [list(csv.DictReader(p.history().splitlines())) for p in (whole, killed)]
    bare = [[{k: v for k, v in row.items() if k != MEASURED} for row in rows] for rows in histories]
    if bare[0] != bare[1]:
        yield "the history differs"
    yield from (f"{path.name} is left over" for path in killed.data.rglob(".*.*") if path.name.count(".") > 2)


def main() -> None:
    """Kill trainings and break writes, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=10, help="Break every n-th write; 0: none.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(arguments.kills, arguments.seed, Path(folder))
    for problem in problems:
        print(problem)
    print(f"{arguments.kills} kills: {'all resumed, equal to the byte' if not problems else 'NOT EQUAL'}.")
    command = [sys.executable, "-m", "tests.faults", "--every", str(arguments.faults)]
    failed = arguments.faults and subprocess.run(command, check=False).returncode
    raise SystemExit(bool(problems or failed))


if __name__ == "__main__":
    main()
