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

from ddpm_kedro.atomic import atomic_write, take_place
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.reading import provenance_of, read_document, reading, seal
from ddpm_kedro.datasets.store_check import (
    HASHES,
    LABELS,
    META,
    SUMS,
    DamagedShardError,
    check_content,
    checksums,
    read_arrays,
    read_meta,
)
from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import ImageStore, LazyImageStore, Shard, ShardedImages
from ddpm_kedro.ingestion.statistics import (
    HASH,
    check_rejected,
    facts_of,
    known,
    repeated,
)
from ddpm_kedro.progress import progress
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
UNFINISHED = "unfinished.json"
REMEDY = "`kedro run --pipelines data_ingestion` makes again what is damaged."
MADE_AGAIN = "It is made again."
FEW, MOST_WORKERS = 2, 32  # shards
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of Linux: microseconds of CPU time in so many that pass
OTHER_FILES = 512  # that a process may have to open besides
AHEAD = 2  # shards a worker that wait to be made: more would only be listed sooner
LISTED = 1_000  # rejected files, of each part, in the report; all of them lie beside the shards

Making = Callable[[], Shard]


class ImageStoreDataset(LocalDataset[LazyImageStore, ImageStore]):
    """A folder with shards ``00000.npy`` (N, H, W, C) uint8, ``labels.npy`` (N,) int64, hashes and ``store.json``.

    Beside every shard lies ``00000.json``, with names, labels and sums of its images and the files that gave none.
    A new store is made beside the earlier one and takes its place as a whole; an interrupted save resumes with the
    first shard that is missing. A store that is already there, made by the same, is neither decoded nor written.

    Args:
        filepath: the folder.
        waits_for: name of a store in the same folder; what is saved here takes its place when that store is saved.
        completes: name of the store that waits for this one, so that both appear together.
        shared: whether the store belongs to another data folder, and is only read here.
        metadata: as of :class:`LocalDataset`.
    """

    def __init__(
        self,
        *,
        filepath: str,
        waits_for: str | None = None,
        completes: str | None = None,
        shared: object = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._waits, self._completes, self._shared = waits_for is not None, completes, bool(shared)

    def load(self) -> ImageStore:
        """The store, its images memory-mapped."""
        while True:
            if not self._exists():
                raise UserError(f"No images in {self._filepath}; run `kedro run --pipelines data_ingestion` first.")
            before = (self._filepath / META).read_bytes()
            try:
                store = self._read(REMEDY)
            except UserError:
                if self._is(before):
                    raise
            else:
                if self._is(before):  # else another store has taken its place meanwhile
                    return store

    def save(self, data: LazyImageStore) -> None:
        """Decode and write, unless the same content is there.

        Raises:
            UserError: where more files than ``max_rejected_fraction`` gave no image, with the most frequent reasons;
                where the source changed while it was read; where the store is shared and would be another.
        """
        same = self._exists() and self._holds(data.made_by)
        if same:
            check_rejected(self._meta()["facts"], data.max_rejected_fraction)
        elif self._shared:
            raise UserError(
                f"{self._filepath} belongs to another data folder (images_root in globals.yml), and these parameters "
                "make other images: ingest them there, or remove images_root."
            )
        else:
            self._make(data)
        if self._shared:
            return
        if same:  # what else was begun meanwhile was given up
            _remove_others(self._filepath)
            (self._filepath / UNFINISHED).unlink(missing_ok=True)
        if not self._waits:
            self._put_in_place()

    def fingerprint(self) -> str:
        """Return the fingerprint of what made the saved store."""
        return self._made_by().fingerprint

    def _read(self, remedy: str) -> ImageStore:
        """The store, if it is whole."""
        with reading(self._filepath, remedy):
            meta = read_meta(self._filepath)
        _allow_open_files(len(meta["shards"]))
        with reading(self._filepath, remedy):
            shards, labels, hashes = read_arrays(self._filepath, meta)
            check_content(self._filepath, meta["shards"], shards, hashes, noted=not self._shared)
            images = shards[0] if len(shards) == 1 else ShardedImages(shards)
            made_by = provenance_of(meta["made_by"])
            return ImageStore(images, labels, tuple(meta["class_names"]), made_by, meta["facts"], hashes)

    def _holds(self, made_by: Provenance) -> bool:
        """Whether the same lies there, and is whole; what is damaged is removed, so that it is made again."""
        remedy = REMEDY if self._shared else MADE_AGAIN
        try:
            return self._made_by(remedy) == made_by and self._read(remedy).made_by == made_by
        except UserError as error:
            if self._shared:
                raise
            logger.warning("%s", error)
            self._take_apart(made_by, error.__cause__)
            return False

    def _take_apart(self, made_by: Provenance, damage: BaseException | None) -> None:
        """Make an interrupted save of a damaged store, with all its shards but a damaged one."""
        place, new = self._filepath.resolve(), _new(self._filepath)
        with suppress(UserError):
            if self._made_by() != made_by:
                return
            with atomic_write(place / UNFINISHED) as file:
                file.write(json.dumps(made_by.as_dict()).encode())
            if isinstance(damage, DamagedShardError):
                for path in place.glob(f"{damage.name}.*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.rmtree(new, ignore_errors=True)
            (place / META).unlink()  # at last: without it, the folder counts as empty
            os.replace(place, new)

    def _make(self, data: LazyImageStore) -> None:
        """Make the store beside its place, whole once it has ``store.json``."""
        self._begin(data.made_by)
        made, new = list(self._watched(data)), _new(self._filepath)
        data.check()
        hashes, labels, rejected = self._gathered(len(made))
        facts = facts_of(made, repeated(hashes)) | {"rejected_files": rejected}
        check_rejected(facts, data.max_rejected_fraction)
        with atomic_write(new / HASHES) as file:
            np.save(file, hashes)
        if data.class_names:
            with atomic_write(new / LABELS) as file:
                np.save(file, labels)
        shards = [f"{number:05d}" for number, each in enumerate(made) if each["images"]]
        meta = {"class_names": list(data.class_names), "count": facts["images"], "shards": shards}
        meta |= {"facts": facts, "made_by": data.made_by.as_dict(), SUMS: checksums(new)}
        with atomic_write(new / META) as file:
            file.write(json.dumps(seal(meta), indent=2).encode())

    def _put_in_place(self) -> None:
        """Let what was made take its place: never is a new store there beside an earlier one of the other."""
        whole = _is_whole(_new(self._filepath))
        if self._completes and _is_whole(_new(other := self._filepath.with_name(self._completes))):
            if whole and self._filepath.exists():
                shutil.rmtree(_earlier(self._filepath), ignore_errors=True)
                os.replace(self._filepath.resolve(), _earlier(self._filepath))
            _appear(other)
        if whole:
            _appear(self._filepath)

    def _begin(self, made_by: Provenance) -> None:
        """An empty folder, or one with the first shards of the same."""
        new = _new(self._filepath)
        unfinished = new / UNFINISHED
        if unfinished.is_file() and _json(unfinished) == made_by.as_dict():
            return
        unfinished.unlink(missing_ok=True)  # first: what is half removed must not look whole
        if new.exists():
            shutil.rmtree(new)
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
        numbered = ((_new(self._filepath) / f"{number:05d}", making) for number, making in enumerate(data.shards()))
        first = list(islice(numbered, FEW + 1))
        workers = _cores() if data.workers is None else data.workers
        if not workers or len(first) <= FEW:  # they are decoded before other processes would have begun
            yield from (_written(path, making) for path, making in chain(first, numbered))
            return
        # Not forked: torch's threads, if there are any, would be missing in the copy.
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
            waiting = deque[Future[dict[str, Any]]]()
            try:
                for path, making in chain(first, numbered):
                    waiting.append(pool.submit(_written, path, making))
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
        hashes, labels, rejected = list[NDArray[np.bytes_]](), list[NDArray[np.int64]](), list[list[str]]()
        for number in range(shards):
            about = json.loads((_new(self._filepath) / f"{number:05d}.json").read_text())
            hashes.append(np.array(about["hashes"], dtype=f"S{2 * HASH}"))
            labels.append(np.array(about["labels"], dtype=np.int64))
            rejected += about["rejected"][: LISTED - len(rejected)]
        return np.concatenate(hashes), np.concatenate(labels), rejected

    def _exists(self) -> bool:
        return (self._filepath / META).exists()

    def _is(self, meta: bytes) -> bool:
        """Whether ``store.json`` is still this one."""
        try:
            return (self._filepath / META).read_bytes() == meta
        except FileNotFoundError:
            return False

    def _made_by(self, remedy: str = REMEDY) -> Provenance:
        with reading(self._filepath, remedy):
            return provenance_of(self._meta()["made_by"])

    def _meta(self) -> dict[str, Any]:
        return read_document(self._filepath / META)


def _new(store: Path) -> Path:
    """Where a store is made: beside its place, on the same disk, though its place may be a link."""
    place = store.resolve()
    return place.with_name(f".{place.name}.new")


def _earlier(store: Path) -> Path:
    """Where a store lies that another one replaces."""
    return _new(store).with_name(f"{_new(store).name}.earlier")


def _is_whole(new: Path) -> bool:
    """Whether a store was made to its end and waits to take its place."""
    return (new / UNFINISHED).is_file() and (new / META).is_file()


def _appear(store: Path) -> None:
    """Put what was made in the place of the earlier store, which is removed."""
    place = store.resolve()
    shutil.rmtree(_earlier(store), ignore_errors=True)
    take_place(_new(store), place)
    (place / UNFINISHED).unlink()
    _remove_others(store)


def _remove_others(store: Path) -> None:
    """Remove what lies beside a store that is in its place."""
    for other in (_new(store), _earlier(store)):
        shutil.rmtree(other, ignore_errors=True)


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


def _written(path: Path, making: Making) -> dict[str, Any]:
    """Make and write a shard, unless it is there; gives what is known of all of it. The images are written first."""
    about, images = path.with_suffix(".json"), path.with_suffix(".npy")
    summary = _summary(about)
    if summary is None or (summary["images"] and not images.is_file()):
        shard = making()
        if len(shard.images):
            with atomic_write(images) as file:
                np.save(file, np.ascontiguousarray(shard.images))
        with atomic_write(about) as file:
            file.write(json.dumps(known(shard)).encode())
        summary = _summary(about)
        assert summary is not None
    return summary


def _summary(about: Path) -> dict[str, Any] | None:
    """What is known of a shard; None where the file is missing or damaged."""
    found = _json(about)
    return found.get("summary") if isinstance(found, dict) else None


def _json(path: Path) -> Any:
    """What a file holds; None where it is missing or damaged."""
    with suppress(FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return json.loads(path.read_text())
    return None
