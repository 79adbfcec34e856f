"""A feature extractor on disk."""

import json
import logging
import shutil
from typing import Any

import torch

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.reading import check_zip, provenance_of, read_document, reading, seal
from ddpm_kedro.errors import UserError
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)


class FeatureExtractorDataset(LocalDataset[LazyFeatureExtractor, FeatureExtractor]):
    """A folder with ``weights.pt`` and ``config.json``, which is written last.

    One that is already there, made by the same, is neither fitted nor written.
    """

    def load(self) -> FeatureExtractor:
        """The extractor, on the CPU."""
        if not self._exists():
            raise UserError(f"No feature extractor in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            check_zip(self._filepath / "weights.pt")
            return FeatureExtractor.from_config(self._config(), self._filepath / "weights.pt")

    def save(self, data: LazyFeatureExtractor) -> None:
        """Fit and write, unless the same is there."""
        if self._exists() and self._is(data.made_by):
            return
        extractor = data.read()
        if self._filepath.is_file():
            self._filepath.unlink()
        shutil.rmtree(self._filepath, ignore_errors=True)
        with atomic_write(self._filepath / "weights.pt") as file:
            torch.save(extractor.state(), file)
        with atomic_write(self._filepath / "config.json") as file:
            file.write(json.dumps(seal(extractor.config()), indent=2).encode() + b"\n")

    def fingerprint(self) -> str:
        """That of what made the saved one."""
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            return provenance_of(self._config()["made_by"]).fingerprint

    def _is(self, made_by: Provenance) -> bool:
        """Whether what lies there was made by the same, and is whole."""
        try:
            with reading(self._filepath, "It is made again."):
                check_zip(self._filepath / "weights.pt")
                return provenance_of(self._config()["made_by"]) == made_by
        except UserError as error:
            logger.warning("%s", error)
            return False

    def _config(self) -> dict[str, Any]:
        return read_document(self._filepath / "config.json")

    def _exists(self) -> bool:
        return (self._filepath / "config.json").exists()
