"""Images on disk that also lie where other hosts reach them."""

from pathlib import PurePosixPath
from typing import Any

import fsspec
from filelock import FileLock

from ddpm_kedro.atomic import replaced_folder
from ddpm_kedro.datasets.base import upload
from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.datasets.store_check import META
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore
from ddpm_kedro.provenance import redact


class RemoteImageStoreDataset(ImageStoreDataset):
    """An :class:`ImageStoreDataset` with a second place, such as ``s3://bucket/training_images``.

    Whoever ingests puts the store there; whoever loads it gets a copy of its own first, unless it has it: training
    reads from a disk, memory-mapped. ``store.json`` is put last and taken away first: no half of a store is met.

    Args:
        filepath: the folder of the copy here.
        remote: a folder of any file system that fsspec knows.
        credentials: what that file system is opened with.
        metadata: as of :class:`LocalDataset`.
    """

    def __init__(
        self,
        *,
        filepath: str,
        remote: str,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._remote = remote
        self._files, self._root = fsspec.url_to_fs(remote, **(credentials or {}))

    def load(self) -> ImageStore:
        """The copy here, brought first where it is not that of the other place."""
        self._bring()
        return super().load()

    def save(self, data: LazyImageStore) -> None:
        """Decode and write, unless the same content is here or there; then it lies in both."""
        self._bring()
        super().save(data)
        self._put()

    def fingerprint(self) -> str:
        """That of what made the store of the other place."""
        self._bring()
        return super().fingerprint()

    def _bring(self) -> None:
        there = self._there()
        if there is None or there == self._here():
            return
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._filepath.with_name(f".{self._filepath.name}.lock")):  # of all processes of a host, one
            if there == self._here():
                return
            with replaced_folder(self._filepath) as new:
                for name in self._files.ls(self._root, detail=False):
                    self._files.get_file(name, str(new / PurePosixPath(name).name))

    def _put(self) -> None:
        if self._there() == self._here():
            return
        upload(self._files, self._filepath, self._root, META)

    def _there(self) -> bytes | None:
        self._files.invalidate_cache()
        try:
            found: bytes = self._files.cat_file(f"{self._root}/{META}")
        except FileNotFoundError:
            return None
        return found

    def _here(self) -> bytes | None:
        file = self._filepath / META
        return file.read_bytes() if file.is_file() else None

    def _exists(self) -> bool:
        return super()._exists() or self._there() is not None

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"remote": redact(self._remote)}
