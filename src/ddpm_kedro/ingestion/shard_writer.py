"""Decode shards and write them into a folder, in several processes; shards that were written before are kept."""

import json
import logging
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.lazy_store import EncodedShard, LazyImageStore
from ddpm_kedro.ingestion.statistics import HASH_BYTES, describe_shard
from ddpm_kedro.progress import progress

logger = logging.getLogger(__name__)
FEW = 2  # so few shards are decoded in this process: starting others would take longer
MAX_WORKERS = 32
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # file of Linux: allowed CPU microseconds per period, and the period
AHEAD = 2  # shards per worker that wait to be decoded: a longer queue is not faster, it only lists files earlier
MAX_LISTED = 1_000  # rejected files in the report; all of them are listed beside the shards

Summary = dict[str, Any]


def write_shards(folder: Path, store: LazyImageStore, title: str) -> list[Summary]:
    """Write the shards of a store that are not in the folder yet.

    A shard has a file ``00000.npy`` with images, unless all were rejected. Its file ``00000.json`` has names, labels,
    hashes, rejected files and the summary that is returned.

    Raises:
        UserError: if a process was killed.
    """
    summaries, done = list[Summary](), 0
    with progress(title, None, "files") as advance:
        try:
            for summary in _write(folder, store):
                summaries.append(summary)
                files = summary["images"] + sum(number for number, _ in summary["rejected"].values())
                done += files
                advance(files)
        except KeyboardInterrupt:
            logger.warning("Stopped. %s files are done; run the same command again to resume.", f"{done:,}")
            raise
    return summaries


def read_records(folder: Path, count: int) -> tuple[NDArray[np.bytes_], NDArray[np.int64], list[list[str]]]:
    """Return hashes (N,) and labels (N,) of all images in the first ``count`` shards, and the first rejected files."""
    hashes, labels, rejected = list[NDArray[np.bytes_]](), list[NDArray[np.int64]](), list[list[str]]()
    for number in range(count):
        record = json.loads((folder / f"{number:05d}.json").read_text())
        hashes.append(np.array(record["hashes"], dtype=f"S{2 * HASH_BYTES}"))
        labels.append(np.array(record["labels"], dtype=np.int64))
        rejected += record["rejected"][: MAX_LISTED - len(rejected)]
    return np.concatenate(hashes), np.concatenate(labels), rejected


def _write(folder: Path, store: LazyImageStore) -> Iterator[Summary]:
    numbered = ((folder / f"{number:05d}", shard) for number, shard in enumerate(store.shards()))
    first = list(islice(numbered, FEW + 1))
    workers = count_cores() if store.workers is None else store.workers
    if not workers or len(first) <= FEW:
        yield from (_write_shard(path, shard) for path, shard in chain(first, numbered))
        return
    # Start with spawn, not fork: a forked process would lack torch's threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        waiting = deque[Future[Summary]]()
        try:
            for path, shard in chain(first, numbered):
                waiting.append(pool.submit(_write_shard, path, shard))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A process that decodes images was killed: there may be too little memory for images.workers = "
                f"{workers}. The decoded shards are kept; run the same command again with fewer workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write_shard(path: Path, shard: EncodedShard) -> Summary:
    """Decode and write a shard unless it exists, the images first; return its summary."""
    record, images = path.with_suffix(".json"), path.with_suffix(".npy")
    summary = _read_summary(record)
    if summary is None or (summary["images"] and not images.is_file()):
        decoded = shard.decode()
        if len(decoded.images):
            with atomic_write(images) as file:
                np.save(file, np.ascontiguousarray(decoded.images))
        with atomic_write(record) as file:
            file.write(json.dumps(describe_shard(decoded)).encode())
        summary = _read_summary(record)
        assert summary is not None
    return summary


def _read_summary(record: Path) -> Summary | None:
    """Return the summary of a shard, or None if its file is missing or damaged."""
    content = read_json(record)
    return content.get("summary") if isinstance(content, dict) else None


def read_json(path: Path) -> Any:
    """Return the content of a file, or None if it is missing or damaged."""
    with suppress(FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return json.loads(path.read_text())
    return None


def count_cores() -> int:
    """Return the number of cores that this process may use, also in a container that is limited to fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such file, or no limit: "max"
        microseconds, period = map(int, CPU_LIMIT.read_text().split())
        cores = min(cores, max(1, microseconds // period))
    return min(cores, MAX_WORKERS)


def _start_worker() -> None:
    """Make a worker end at once and silently at Ctrl-C, and end when its parent ends, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # a shard that is half written has a temporary name, and is not part of a store
