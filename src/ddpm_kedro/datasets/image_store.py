"""Images on disk: memory-mapped shards, their labels, and what they mean."""

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
REMEDY = "`kedro run --pipelines data_ingestion` makes again what is damaged."
MADE_AGAIN = "It is made again."
OTHER_FILES = 512  # that a process may have to open besides


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

    def _make(self, store: LazyImageStore) -> None:
        """Make the store beside its place; it is complete once it has ``store.json``."""
        new = _new(self._filepath)
        self._begin(new, store.made_by)
        summaries = write_shards(new, store, f"storing {self._filepath.name}")
        store.check()
        records = read_records(new, len(summaries))
        statistics = summarize(summaries, records.hashes) | {"rejected_files": records.rejected}
        check_rejected(statistics, store.max_rejected_fraction)
        with atomic_write(new / HASHES) as file:
            np.save(file, records.hashes)
        if store.class_names:
            with atomic_write(new / LABELS) as file:
                np.save(file, records.labels)
        shards = [f"{number:05d}" for number, summary in enumerate(summaries) if summary["images"]]
        meta = {"class_names": list(store.class_names), "count": statistics["images"], "shards": shards}
        meta |= {"facts": statistics, "made_by": store.made_by.as_dict(), SUMS: checksums(new)}
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

    def _begin(self, new: Path, made_by: Provenance) -> None:
        """Make an empty folder, or keep one with the first shards of the same store."""
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
