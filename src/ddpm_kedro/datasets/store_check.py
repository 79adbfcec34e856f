"""Check a store of images: sizes and headers always, the content of a shard at its first use on a host."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import DAMAGE, MISPLACED, file_checksum, provenance_of, read_document, reason_of
from ddpm_kedro.ingestion.statistics import hash_images
from ddpm_kedro.progress import progress

META, LABELS, HASHES = "store.json", "labels.npy", "hashes.npy"
SUMS = "sha256"
NOTED_FROM = 2**26  # bytes: smaller stores are checked by each process, which takes a moment
CHECKED: set[tuple[Any, ...]] = set()
"""Shards that this process has checked."""


class DamagedShardError(UserError):
    """The shard of that name is damaged, and can be decoded again without the others."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


def checksums(folder: Path) -> dict[str, str]:
    """Return the checksums of the labels and hashes that exist."""
    return {name: file_checksum(folder / name) for name in (LABELS, HASHES) if (folder / name).is_file()}


def read_meta(folder: Path) -> dict[str, Any]:
    """Read ``store.json``, and verify the checksums of labels and hashes; call it within ``files.reading``."""
    meta = read_document(folder / META)
    provenance_of(meta["made_by"])
    lists = [meta["class_names"], meta["shards"]]
    if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists):
        raise UserError("class_names or shards is not a list of names")
    if not isinstance(meta["facts"], dict) or not meta["shards"]:
        raise UserError("it has no statistics (facts), or no shards")
    for name, sum_ in meta.get(SUMS, {}).items():  # earlier versions wrote none
        if file_checksum(folder / name) != sum_:
            raise UserError(f"the content of {name} does not match its checksum")
    return meta


def read_arrays(
    folder: Path, meta: dict[str, Any]
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64] | None, NDArray[np.bytes_] | None]:
    """Memory-map the shards, and read labels and hashes; their sizes must match."""
    shards = [_mapped(folder, name) for name in meta["shards"]]
    count = sum(len(shard) for shard in shards)
    labels = np.load(folder / LABELS) if meta["class_names"] else None
    hashes = np.load(folder / HASHES, mmap_mode="r") if (folder / HASHES).is_file() else None
    if count != meta.get("count", count) or len({shard.shape[1:] for shard in shards}) > 1:
        raise UserError(f"the shards have {count} images, or images of several sizes; {meta.get('count')} are expected")
    if labels is not None and (
        labels.dtype != np.int64
        or labels.shape != (count,)
        or not 0 <= labels.min() <= labels.max() < len(meta["class_names"])
    ):
        raise UserError(f"{LABELS} does not have a label for each of {count} images")
    if hashes is not None and hashes.shape != (count,):
        raise UserError(f"{HASHES} does not have a hash for each of {count} images")
    return shards, labels, hashes


def check_content(folder: Path, names: Sequence[str], shards: Sequence[Any], hashes: Any, *, noted: bool) -> None:
    """Compare the images of each shard with their hashes, unless this host has done so before.

    With ``noted``, the shards that were checked are written beside the store, for other processes.

    Raises:
        DamagedShardError: for the first shard that has changed.
    """
    if hashes is None:  # the store was written by an early version
        return
    stamp = folder.with_name(f".{folder.name}-checked.json")  # not in the store, whose content others compare
    known = _read_stamp(stamp)
    mine = known.setdefault(socket.gethostname(), {})
    ends = np.cumsum([len(shard) for shard in shards])
    states = [_state(folder, name) for name in names]
    new = [i for i, state in enumerate(states) if mine.get(names[i]) != state and tuple(state) not in CHECKED]
    if not new:
        return
    with progress(f"checking {folder.name}", len(new), "shards") as advance:
        for index in new:
            shard, end = shards[index], int(ends[index])
            stored = hashes[end - len(shard) : end]
            if hash_images(shard) != [bytes(each).decode() for each in stored]:
                raise DamagedShardError(f"the images of {names[index]}.npy have changed", names[index])
            mine[names[index]] = states[index]
            CHECKED.add(tuple(states[index]))
            advance(1)
    if noted and sum(shards[index].nbytes for index in new) >= NOTED_FROM:
        with suppress(OSError), atomic_write(stamp) as file:  # on a read-only disk the file is not written
            file.write(json.dumps(known).encode())


def _state(folder: Path, name: str) -> list[Any]:
    """Return path, size and time of change, which change if a shard is replaced."""
    path = folder / f"{name}.npy"
    file = path.stat()
    return [str(path.resolve()), file.st_size, file.st_mtime_ns]


def _mapped(folder: Path, name: str) -> Any:
    path = folder / f"{name}.npy"
    try:
        shard = np.load(path, mmap_mode="r")
    except (*DAMAGE, *MISPLACED) as error:
        raise DamagedShardError(f"{path.name} cannot be read: {reason_of(error)}", name) from error
    if shard.dtype != np.uint8 or shard.ndim != 4 or not len(shard):
        raise DamagedShardError(f"{path.name} is {shard.dtype} {shard.shape}, not uint8 (N, H, W, C)", name)
    expected = shard.offset + shard.nbytes
    if path.stat().st_size != expected:
        raise DamagedShardError(f"{path.name} has {path.stat().st_size:,} bytes, not {expected:,}", name)
    return shard


def _read_stamp(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()):
            return found
    return {}
