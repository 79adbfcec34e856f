"""Images on disk: one memory-mapped array, its labels and what they mean."""

import json
import shutil
from typing import Any

import numpy as np

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.images.store import ImageStore, LazyImageStore
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


class ImageStoreDataset(LocalDataset[LazyImageStore, ImageStore]):
    """A folder with ``images.npy`` (N, H, W, C) uint8, ``labels.npy`` (N,) int64 and ``store.json``.

    ``store.json`` is written last: without it the folder counts as empty, so an interrupted save is done again.
    A store that is already there, made by the same, is neither decoded nor written.
    """

    def load(self) -> ImageStore:
        """The store, its images memory-mapped."""
        if not self._exists():
            raise UserError(f"No images in {self._filepath}; run `kedro run --pipelines data_ingestion` first.")
        meta = self._meta()
        return ImageStore(
            images=np.load(self._filepath / "images.npy", mmap_mode="r"),
            labels=np.load(self._filepath / "labels.npy") if meta["class_names"] else None,
            class_names=tuple(meta["class_names"]),
            made_by=self._made_by(),
        )

    def save(self, data: LazyImageStore) -> None:
        """Decode and write, unless the same content is there."""
        if self._exists() and self._made_by() == data.made_by:
            return
        store = data.read()
        shutil.rmtree(self._filepath, ignore_errors=True)
        with atomic_write(self._filepath / "images.npy") as file:
            np.save(file, np.ascontiguousarray(store.images))
        if store.labels is not None:
            with atomic_write(self._filepath / "labels.npy") as file:
                np.save(file, store.labels)
        meta = {"class_names": list(store.class_names), "count": len(store), "made_by": store.made_by.as_dict()}
        with atomic_write(self._filepath / "store.json") as file:
            file.write(json.dumps(meta, indent=2).encode())

    def fingerprint(self) -> str:
        """That of what made the saved store."""
        return self._made_by().fingerprint

    def _exists(self) -> bool:
        return (self._filepath / "store.json").exists() and "made_by" in self._meta()

    def _made_by(self) -> Provenance:
        return Provenance(**self._meta()["made_by"])

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self._filepath / "store.json").read_text())
        return meta
