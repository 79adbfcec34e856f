"""The state of a dataset on disk: whether it is still what was written."""

from pathlib import Path
from typing import Any, NamedTuple

from kedro.io import MemoryDataset

from ddpm_kedro.datasets.base import FileDataset, LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import file_checksum
from ddpm_kedro.kedro_adapter import local_path
from ddpm_kedro.provenance import fingerprint

MISSING, DAMAGED = "missing", "damaged"


class DiskState(NamedTuple):
    """The state of a dataset's files.

    Attributes:
        stamp: names, sizes and times of the last change, hashed; cheap to compare.
        checksum: the content, hashed. It stays the same if the files are copied.
    """

    stamp: str
    checksum: str


def disk_state(dataset: Any, known: DiskState | None = None) -> DiskState | None:
    """Return the state of a dataset on disk; None if it cannot be known.

    Args:
        known: an earlier state. The content is read only if the stamp differs from the earlier one.
    """
    if isinstance(dataset, FileDataset) and (remote := dataset.remote_stamp()):
        return DiskState(remote, remote)
    path = place_of(dataset)
    if path is None:  # a parameter may leave out the path of a dataset
        return DiskState(MISSING, MISSING) if isinstance(dataset, LocalDataset) else None
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path][: path.exists()]
    stamp = fingerprint([(_name(each, path), each.stat().st_size, each.stat().st_mtime_ns) for each in files])
    if known is not None and known.stamp == stamp:
        return known
    return DiskState(stamp, _checksum(dataset, path, files))


def place_of(dataset: Any) -> Path | None:
    """Return the path of a dataset; None if it has none that is known."""
    return dataset.place if isinstance(dataset, LocalDataset) else local_path(dataset)


def is_stored(dataset: Any) -> bool:
    """Return whether a dataset outlives the process."""
    return not isinstance(dataset, MemoryDataset)


def _checksum(dataset: Any, path: Path, files: list[Path]) -> str:
    if not files:
        return MISSING
    if hasattr(dataset, "checksum"):
        try:
            return str(dataset.checksum())
        except UserError:  # explained when it is loaded
            return DAMAGED
    return fingerprint([(_name(each, path), file_checksum(each)) for each in files])


def _name(file: Path, path: Path) -> str:
    """Return the name of a file within a folder; a single file has none, so that it may be renamed."""
    return file.relative_to(path).as_posix()
