"""Images on disk with a copy that other hosts can read."""

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

    The host that ingests uploads the store; a host that loads it downloads it first, unless it has the same copy:
    training reads memory-mapped files of a local disk. ``store.json`` is uploaded last and removed first, so that an
    incomplete store does not count.

    Args:
        filepath: folder of the local copy.
        remote: folder in any file system that fsspec knows.
        credentials: credentials for that file system.
        metadata: see :class:`LocalDataset`.
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
        """Load the local copy; download it first if the remote store differs."""
        self._download()
        return super().load()

    def save(self, data: LazyImageStore) -> None:
        """Decode and write the images unless the same store exists here or remotely; then upload it."""
        self._download()
        super().save(data)
        self._upload()

    def fingerprint(self) -> str:
        """Return the fingerprint of the remote store."""
        self._download()
        return super().fingerprint()

    def _download(self) -> None:
        remote = self._remote_meta()
        if remote is None or remote == self._local_meta():
            return
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._filepath.with_name(f".{self._filepath.name}.lock")):  # one process per host downloads
            if remote == self._local_meta():
                return
            with replaced_folder(self._filepath) as new:
                for name in self._files.ls(self._root, detail=False):
                    self._files.get_file(name, str(new / PurePosixPath(name).name))

    def _upload(self) -> None:
        if self._remote_meta() == self._local_meta():
            return
        upload(self._files, self._filepath, self._root, META)

    def _remote_meta(self) -> bytes | None:
        self._files.invalidate_cache()
        try:
            meta: bytes = self._files.cat_file(f"{self._root}/{META}")
        except FileNotFoundError:
            return None
        return meta

    def _local_meta(self) -> bytes | None:
        file = self._filepath / META
        return file.read_bytes() if file.is_file() else None

    def _exists(self) -> bool:
        return super()._exists() or self._remote_meta() is not None

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"remote": redact(self._remote)}
