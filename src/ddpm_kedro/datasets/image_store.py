"""Images on disk: memory-mapped shards with labels and class names."""

import json
import logging
import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_kedro.atomic import atomic_write, take_place
from ddpm_kedro.datasets.base import LocalDataset
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
from ddpm_kedro.files import provenance_of, read_document, reading, seal
from ddpm_kedro.images.store import ImageStore, ShardedImages
from ddpm_kedro.ingestion.lazy_store import LazyImageStore
from ddpm_kedro.ingestion.shard_writer import read_json, read_records, write_shards
from ddpm_kedro.ingestion.statistics import check_rejected, summarize
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
UNFINISHED = "unfinished.json"
REMEDY = "`kedro run --pipelines data_ingestion` repairs it."
MADE_AGAIN = "It is made again."
OTHER_FILES = 512  # number of files that a process may open besides the shards


class ImageStoreDataset(LocalDataset[LazyImageStore, ImageStore]):
    """A folder with shards ``00000.npy`` (N, H, W, C) uint8, ``labels.npy`` (N,) int64, hashes and ``store.json``.

    Beside each shard there is a ``00000.json`` with names, labels and sums of its images, and rejected files.
    A new store is written beside the earlier one and replaces it as a whole; an interrupted save resumes with the first
    missing shard. If the same store exists already, nothing is decoded or written.

    Args:
        filepath: path of the folder.
        waits_for: name of a store in the same folder; a store saved here appears when that store is saved.
        completes: name of the store that waits for this one, so that both appear together.
        shared: whether the store belongs to another data folder, and is read-only here.
        metadata: see :class:`LocalDataset`.
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
        """Load the store, its images memory-mapped."""
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
                if self._is(before):  # else another store has replaced it in the meantime
                    return store

    def save(self, data: LazyImageStore) -> None:
        """Decode and write the images, unless the same store exists already.

        Raises:
            UserError: if too many files were rejected, the source changed meanwhile, or a shared store would change.
        """
        same = self._exists() and self._contains(data.made_by)
        if same:
            check_rejected(self._meta()["facts"], data.max_rejected_fraction)
        elif self._shared:
            raise UserError(
                f"{self._filepath} belongs to another data folder (images_root in globals.yml), and with these "
                "parameters the images differ: ingest them there, or remove images_root."
            )
        else:
            self._make(data)
        if self._shared:
            return
        if same:  # remove what an interrupted save of another store left
            _remove_others(self._filepath)
            (self._filepath / UNFINISHED).unlink(missing_ok=True)
        if not self._waits:
            self._put_in_place()

    def fingerprint(self) -> str:
        """Return the fingerprint of the saved store."""
        return self._made_by().fingerprint

    def checksum(self) -> str:
        """Return the fingerprint of the saved store, after a check of its images; raise UserError if it is damaged."""
        return self.load().made_by.fingerprint

    def _read(self, remedy: str) -> ImageStore:
        """Load the store if it is complete and undamaged."""
        with reading(self._filepath, remedy):
            meta = read_meta(self._filepath)
        _allow_open_files(len(meta["shards"]))
        with reading(self._filepath, remedy):
            shards, labels, hashes = read_arrays(self._filepath, meta)
            check_content(self._filepath, meta["shards"], shards, hashes, noted=not self._shared)
            images = shards[0] if len(shards) == 1 else ShardedImages(shards)
            made_by = provenance_of(meta["made_by"])
            return ImageStore(images, labels, tuple(meta["class_names"]), made_by, meta["facts"], hashes)

    def _contains(self, made_by: Provenance) -> bool:
        """Return whether the same store exists and is undamaged; prepare a damaged one for repair."""
        remedy = REMEDY if self._shared else MADE_AGAIN
        try:
            return self._made_by(remedy) == made_by and self._read(remedy).made_by == made_by
        except UserError as error:
            if self._shared:
                raise
            logger.warning("%s", error)
            self._prepare_repair(made_by, error.__cause__)
            return False

    def _prepare_repair(self, made_by: Provenance, damage: BaseException | None) -> None:
        """Turn a damaged store into an interrupted save, with all its shards except a damaged one."""
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
            (place / META).unlink()  # last: without it, the folder counts as empty
            os.replace(place, new)

    def _make(self, store: LazyImageStore) -> None:
        """Make the store beside its place; it is complete once it has ``store.json``."""
        new = _new(self._filepath)
        self._begin(new, store.made_by)
        summaries = write_shards(new, store, f"storing {self._filepath.name}")
        store.check()
        hashes, labels, rejected = read_records(new, len(summaries))
        statistics = summarize(summaries, hashes) | {"rejected_files": rejected}
        check_rejected(statistics, store.max_rejected_fraction)
        with atomic_write(new / HASHES) as file:
            np.save(file, hashes)
        if store.class_names:
            with atomic_write(new / LABELS) as file:
                np.save(file, labels)
        shards = [f"{number:05d}" for number, summary in enumerate(summaries) if summary["images"]]
        meta = {"class_names": list(store.class_names), "count": statistics["images"], "shards": shards}
        meta |= {"facts": statistics, "made_by": store.made_by.as_dict(), SUMS: checksums(new)}
        with atomic_write(new / META) as file:
            file.write(json.dumps(seal(meta), indent=2).encode())

    def _put_in_place(self) -> None:
        """Move new stores to their places; a new store is never beside the earlier one of the other name."""
        complete = _is_complete(_new(self._filepath))
        if self._completes and _is_complete(_new(other := self._filepath.with_name(self._completes))):
            if complete and self._filepath.exists():
                shutil.rmtree(_earlier(self._filepath), ignore_errors=True)
                os.replace(self._filepath.resolve(), _earlier(self._filepath))
            _appear(other)
        if complete:
            _appear(self._filepath)

    def _begin(self, new: Path, made_by: Provenance) -> None:
        """Make an empty folder, unless there is one with the first shards of the same store."""
        unfinished = new / UNFINISHED
        if unfinished.is_file() and read_json(unfinished) == made_by.as_dict():
            return
        unfinished.unlink(missing_ok=True)  # first: a folder that is half removed must not look complete
        if new.exists():
            shutil.rmtree(new)
        with atomic_write(unfinished) as file:
            file.write(json.dumps(made_by.as_dict()).encode())

    def _exists(self) -> bool:
        return (self._filepath / META).exists()

    def _is(self, meta: bytes) -> bool:
        """Return whether ``store.json`` still has this content."""
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
    """Return where a store is written: beside its place, on the same disk even if its place is a link."""
    place = store.resolve()
    return place.with_name(f".{place.name}.new")


def _earlier(store: Path) -> Path:
    """Return where a store is moved while another one replaces it."""
    return _new(store).with_name(f"{_new(store).name}.earlier")


def _is_complete(new: Path) -> bool:
    """Return whether a store is complete and waits to be moved to its place."""
    return (new / UNFINISHED).is_file() and (new / META).is_file()


def _appear(store: Path) -> None:
    """Move a new store to its place, and remove the earlier one."""
    place = store.resolve()
    shutil.rmtree(_earlier(store), ignore_errors=True)
    take_place(_new(store), place)
    (place / UNFINISHED).unlink()
    _remove_others(store)


def _remove_others(store: Path) -> None:
    """Remove a new and an earlier store beside a store."""
    for other in (_new(store), _earlier(store)):
        shutil.rmtree(other, ignore_errors=True)


def _allow_open_files(count: int) -> None:
    """Raise the limit of open files: each memory-mapped shard keeps its file open.

    Raises:
        UserError: if the system does not allow that many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < needed:
        raise UserError(f"The images are in {count:,} files, more than this process may open: run ulimit -n {needed}.")
