"""Images on disk: memory-mapped shards, their labels, and what they mean."""

import json
import logging
import os
import resource
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator
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

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.images.facts import HASH, PERCEPTUAL, check_rejected, facts_of, known, perceptual_hashes, repeated
from ddpm_kedro.images.progress import progress
from ddpm_kedro.images.store import ImageStore, LazyImageStore, Shard, ShardedImages
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
META, UNFINISHED, LABELS, HASHES = "store.json", "unfinished.json", "labels.npy", "hashes.npy"
FEW, MOST_WORKERS = 2, 32  # shards
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of Linux: microseconds of CPU time in so many that pass
OTHER_FILES = 512  # that a process may have to open besides
AHEAD = 2  # shards a worker that wait to be made: more would only be listed sooner
LISTED = 1_000  # rejected files, of each part, in the report; all of them lie beside the shards

Making = Callable[[], Shard]


class ImageStoreDataset(LocalDataset[LazyImageStore, ImageStore]):
    """A folder with shards ``00000.npy`` (N, H, W, C) uint8, ``labels.npy`` (N,) int64, hashes and ``store.json``.

    Beside every shard lies ``00000.json``, with names, labels and sums of its images and the files that gave none. Each
    shard is written whole or not at all, and an interrupted save goes on with the first that is missing.
    ``store.json`` is written last: without it the folder counts as empty. A store that is already there, made by the
    same, is neither decoded nor written.
    """

    def load(self) -> ImageStore:
        """The store, its images memory-mapped."""
        if not self._exists():
            raise UserError(f"No images in {self._filepath}; run `kedro run --pipelines data_ingestion` first.")
        meta = self._meta()
        _allow_open_files(len(meta["shards"]))
        shards = [np.load(self._filepath / f"{name}.npy", mmap_mode="r") for name in meta["shards"]]
        return ImageStore(
            images=shards[0] if len(shards) == 1 else ShardedImages(shards),
            labels=np.load(self._filepath / LABELS) if meta["class_names"] else None,
            class_names=tuple(meta["class_names"]),
            made_by=self._made_by(),
            facts=meta["facts"],
            hashes=np.load(hashes, mmap_mode="r") if (hashes := self._filepath / HASHES).is_file() else None,
        )

    def save(self, data: LazyImageStore) -> None:
        """Decode and write, unless the same content is there.

        Raises:
            UserError: where more files than ``max_rejected_fraction`` gave no image, with the most frequent reasons;
                where the source changed while it was read.
        """
        if self._exists() and self._made_by() == data.made_by:
            (self._filepath / UNFINISHED).unlink(missing_ok=True)  # of a save that was killed at the very end
            check_rejected(self._meta()["facts"], data.max_rejected_fraction)
            return
        self._begin(data.made_by)
        made = list(self._watched(data))
        data.check()
        hashes, labels, rejected = self._gathered(len(made))
        facts = facts_of(made, repeated(hashes)) | {"rejected_files": rejected}
        if data.perceptual:
            facts["near_duplicates"] = repeated(self._hashes(len(made), "perceptual", 2 * PERCEPTUAL))
        check_rejected(facts, data.max_rejected_fraction)
        with atomic_write(self._filepath / HASHES) as file:
            np.save(file, hashes)
        if data.class_names:
            with atomic_write(self._filepath / LABELS) as file:
                np.save(file, labels)
        shards = [f"{number:05d}" for number, each in enumerate(made) if each["images"]]
        meta = {"class_names": list(data.class_names), "count": facts["images"], "shards": shards}
        with atomic_write(self._filepath / META) as file:
            file.write(json.dumps(meta | {"facts": facts, "made_by": data.made_by.as_dict()}, indent=2).encode())
        (self._filepath / UNFINISHED).unlink()

    def fingerprint(self) -> str:
        """That of what made the saved store."""
        return self._made_by().fingerprint

    def _begin(self, made_by: Provenance) -> None:
        """An empty folder, or one with the first shards of the same."""
        unfinished = self._filepath / UNFINISHED
        if unfinished.is_file() and json.loads(unfinished.read_text()) == made_by.as_dict():
            return
        for name in (META, UNFINISHED):  # first: what is half removed must not look whole
            (self._filepath / name).unlink(missing_ok=True)
        if self._filepath.exists():
            shutil.rmtree(self._filepath)
        with atomic_write(unfinished) as file:
            file.write(json.dumps(made_by.as_dict()).encode())

    def _watched(self, data: LazyImageStore) -> Iterator[dict[str, Any]]:
        """What :meth:`_write` gives, while a person sees how far it is."""
        done = 0
        with progress(f"storing {self._filepath.name}", None, "files") as advance:
            try:
                for each in self._write(data):
                    files = each["images"] + sum(number for number, _ in each["rejected"].values())
                    done += files
                    advance(files)
                    yield each
            except KeyboardInterrupt:
                logger.warning("Stopped. %s files are done with; the same command goes on from there.", f"{done:,}")
                raise

    def _write(self, data: LazyImageStore) -> Iterator[dict[str, Any]]:
        """What is known of every shard, in order; those that are missing are made."""
        numbered = ((self._filepath / f"{number:05d}", making) for number, making in enumerate(data.shards()))
        first = list(islice(numbered, FEW + 1))
        workers = _cores() if data.workers is None else data.workers
        if not workers or len(first) <= FEW:  # they are decoded before other processes would have begun
            yield from (_written(path, making, data.perceptual) for path, making in chain(first, numbered))
            return
        # Not forked: torch's threads, if there are any, would be missing in the copy.
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
            waiting = deque[Future[dict[str, Any]]]()
            try:
                for path, making in chain(first, numbered):
                    waiting.append(pool.submit(_written, path, making, data.perceptual))
                    if len(waiting) > AHEAD * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BrokenProcessPool as error:
                raise UserError(
                    "A process that decoded pictures was killed: is there too little memory for images.workers "
                    f"= {workers} of them? What is decoded is kept; run it again with fewer."
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _gathered(self, shards: int) -> tuple[NDArray[np.bytes_], NDArray[np.int64], list[list[str]]]:
        """Hashes and labels of all images, and names and reasons of the first files that gave none."""
        labels, rejected = list[NDArray[np.int64]](), list[list[str]]()
        for number in range(shards):
            about = self._about(number)
            labels.append(np.array(about["labels"], dtype=np.int64))
            rejected += about["rejected"][: LISTED - len(rejected)]
        return self._hashes(shards, "hashes", 2 * HASH), np.concatenate(labels), rejected

    def _hashes(self, shards: int, kind: str, digits: int) -> NDArray[np.bytes_]:
        """One of every image."""
        return np.concatenate([np.array(self._about(number)[kind], dtype=f"S{digits}") for number in range(shards)])

    def _about(self, number: int) -> dict[str, Any]:
        about: dict[str, Any] = json.loads((self._filepath / f"{number:05d}.json").read_text())
        return about

    def _exists(self) -> bool:
        return (self._filepath / META).exists() and "facts" in self._meta()

    def _made_by(self) -> Provenance:
        return Provenance(**self._meta()["made_by"])

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self._filepath / META).read_text())
        return meta


def _cores() -> int:
    """Those that this process may use, also in a container that has but a share of them."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such file, or no limit: "max"
        microseconds, of = map(int, CPU_LIMIT.read_text().split())
        mine = min(mine, max(1, microseconds // of))
    return min(mine, MOST_WORKERS)


def _allow_open_files(count: int) -> None:
    """Each shard that is mapped keeps its file open, and the limit is lower than a system needs.

    Raises:
        UserError: where the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        raise UserError(f"The images lie in {count:,} files, more than this process may open: ulimit -n {wanted}.")


def _begin_worker() -> None:
    """End at Ctrl-C at once and in silence, since the parent speaks; end with the parent, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # what is half written is no part of a store


def _written(path: Path, making: Making, perceptual: bool) -> dict[str, Any]:
    """Make and write a shard, unless it is there; gives what is known of all of it. The images are written first."""
    about, images = path.with_suffix(".json"), path.with_suffix(".npy")
    if not (about.is_file() and (images.is_file() or not json.loads(about.read_text())["summary"]["images"])):
        shard = making()
        if len(shard.images):
            with atomic_write(images) as file:
                np.save(file, np.ascontiguousarray(shard.images))
        with atomic_write(about) as file:
            like = {"perceptual": perceptual_hashes(shard.images)} if perceptual else {}
            file.write(json.dumps(known(shard) | like).encode())
    summary: dict[str, Any] = json.loads(about.read_text())["summary"]
    return summary
