"""Measure training with several processes, started by torchrun on the command line."""

import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.training.results import ROOT, Row

MODULE = [sys.executable, "-m", "ddpm_kedro"]
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SETTINGS = "tracking.mode=disabled,training.preview_images=0,training.validation_images=1"


def measure(counts: list[int], num_images: int, changes: str, rounds: int) -> list[Row]:
    """Measure images per second of training with each number of processes, which share the cores.

    The results are medians of interleaved rounds.
    """
    rates = {count: list[float]() for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder))
        call([*MODULE, "--pipelines", "data_ingestion"], project, {})
        for count in counts * rounds:
            rates[count].append(images_per_second(project, count, num_images, changes))
            print(f"{count} processes: {rates[count][-1]:.0f} images/s", flush=True)
    return [
        {"what": "processes", "value": count, "threads": threads_of(count), "settings": changes}
        | {"images_per_second": statistics.median(found)}
        for count, found in rates.items()
    ]


def make_project(folder: Path) -> Path:
    """Make a project with the real configuration and its own data, so that no run of this project is disturbed."""
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()
    (folder / "data").mkdir(exist_ok=True)
    return folder


def threads_of(count: int) -> int:
    """Return the number of threads per process."""
    return max(1, (os.cpu_count() or 1) // count)


def images_per_second(project: Path, count: int, num_images: int, changes: str) -> float:
    """Train, and return the median of the history's rows without the first, which warms up."""
    length = f"training.num_images={num_images},training.report_interval={max(1, num_images // 6)}"
    params = ",".join(
        part for part in (length, f"training.checkpoint_interval={num_images}", SETTINGS, changes) if part
    )
    arguments = ["-m", "ddpm_kedro", "--pipelines", "model_training", "--params", params]
    shutil.rmtree(project / "data" / "06_models", ignore_errors=True)
    history = project / "data" / "08_reporting" / "training_history.csv"
    history.unlink(missing_ok=True)
    call([*LAUNCHER, str(count), *arguments], project, {"OMP_NUM_THREADS": str(threads_of(count))})
    with history.open() as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    return statistics.median(rates[1:] or rates)


def call(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command in a folder.

    Raises:
        RuntimeError: if it fails; with the end of its output.
    """
    package = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    around = os.environ | {"PYTHONPATH": package, "DO_NOT_TRACK": "1"} | environment
    done = subprocess.run(command, cwd=folder, env=around, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
