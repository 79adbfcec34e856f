"""The finished runs in ``data/runs/``, and how they differ."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpm_kedro.datasets.history import read_history
from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.files import read_document, reading
from ddpm_kedro.provenance import differences, redact, set_name

logger = logging.getLogger(__name__)
PARAMETERS = "parameters.json"
"""The file that marks a run as finished."""
MAY_DIFFER = ("run_id", "images_seen", "seconds", "device", "date")  # entries that comparable runs need not share


@dataclass(frozen=True)
class KeptRun:
    """A finished run in the archive.

    Attributes:
        parameters: all parameters, resolved.
        figures: the last row of the history.
        metrics: the content of ``metrics.json``; empty if the samples were not evaluated.
        finished: local time at which it finished.
    """

    folder: Path
    parameters: dict[str, Any]
    figures: dict[str, float]
    metrics: dict[str, Any]
    finished: datetime

    @property
    def run_id(self) -> str:
        """Return the hash that names the run."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Return the size on disk in bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def read_runs(folder: Path) -> list[KeptRun]:
    """Read the finished runs in a folder, the newest first; skip damaged ones with a warning."""
    runs = [_read_run(path.parent) for path in folder.glob(f"*/{PARAMETERS}")]
    return sorted((run for run in runs if run is not None), key=lambda run: run.finished, reverse=True)


def read_unfinished(folder: Path) -> list[KeptRun]:
    """Read the runs in a folder that left checkpoints but did not finish, the newest checkpoint first."""
    checkpoints: dict[Path, float] = {}
    for path in folder.glob("*/**/*.pt"):
        run = folder / path.relative_to(folder).parts[0]
        if not (run / "parameters.json").exists():
            checkpoints[run] = max(checkpoints.get(run, 0.0), path.stat().st_mtime)
    runs = [KeptRun(run, {}, {}, {}, datetime.fromtimestamp(when)) for run, when in checkpoints.items()]
    return sorted(runs, key=lambda run: run.finished, reverse=True)


def find_run(runs: list[KeptRun], name: str) -> KeptRun:
    """Return the run whose id begins with a name; raise UserError if no run or more than one run matches."""
    found = [run for run in runs if run.run_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"Several runs begin with '{name}': {', '.join(run.run_id for run in found)}.")
    raise UserError(f"No finished run '{name}'. {nearest(name, [run.run_id for run in runs])}")


def compare(earlier: KeptRun, later: KeptRun) -> list[str]:
    """Return one line per parameter, training value and metric in which two runs differ."""
    found = differences(earlier.parameters, later.parameters) + differences(earlier.figures, later.figures)
    if not (earlier.metrics and later.metrics):
        return found
    if unlike := differences(_conditions(earlier.metrics), _conditions(later.metrics)):
        return [*found, f"The metrics of their samples cannot be compared, because these differ: {'; '.join(unlike)}"]
    return found + differences(_values(earlier.metrics), _values(later.metrics))


def _conditions(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return everything that must be equal before the metrics of two runs are compared."""
    samples = {name: value for name, value in metrics["samples"].items() if name not in MAY_DIFFER}
    images = {name: value for name, value in metrics["made_by"]["inputs"].items() if name != "samples"}
    return {**samples, "extractor": metrics["extractor"], "reference_images": metrics["reference_images"], **images}


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in metrics["figures"]}


def _read_run(folder: Path) -> KeptRun | None:
    """Read a run; return None if its parameters are damaged."""
    parameters = _read(folder / PARAMETERS, _parameters)
    if parameters is None:
        return None
    return KeptRun(
        folder=folder,
        parameters=_named(parameters),
        figures=_read(folder / "training_history.csv", _last_row) or {},
        metrics=_read(folder / "metrics.json", _metrics) or {},
        finished=datetime.fromtimestamp((folder / PARAMETERS).stat().st_mtime),
    )


def _read(path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """Read a file of a run; return None if it is missing, or with a warning if it is damaged."""
    try:
        with reading(path, f"`kedro runs` skips it. Copy it again, or remove {path.parent}."):
            return read(path) if path.exists() else None
    except UserError as error:
        logger.warning("%s", error)
        return None


def _parameters(path: Path) -> dict[str, Any]:
    parameters = read_document(path)
    dict(parameters["use"])
    float(parameters["optimizer"]["lr"])
    return parameters


def _last_row(path: Path) -> dict[str, float]:
    rows = read_history(path)
    return rows[-1] if rows else {}


def _metrics(path: Path) -> dict[str, Any]:
    metrics = read_document(path)
    _conditions(metrics)  # fails if a compared value is missing
    _values(metrics)
    return metrics


def _named(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters without secrets in URLs; a dataset of one's own gets the name of its folder or file."""
    path = parameters.get("dataset", {}).get("path")
    own = {"use": parameters["use"] | {"dataset": set_name(path)}} if path else {}
    return dict(redact(parameters | own))
