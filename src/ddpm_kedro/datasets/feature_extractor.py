"""A feature extractor on disk."""

import json
import logging
import shutil
from typing import Any

import torch

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import check_zip, provenance_of, read_document, reading, seal
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)


class FeatureExtractorDataset(LocalDataset[LazyFeatureExtractor, FeatureExtractor]):
    """A folder with ``weights.pt`` and ``config.json``, which is written last.

    A saved extractor with the same parameters and inputs is kept: it is neither fitted nor written again.
    """

    def load(self) -> FeatureExtractor:
        """Load the extractor to the CPU."""
        if not self._exists():
            raise UserError(f"No feature extractor in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            check_zip(self._filepath / "weights.pt")
            return FeatureExtractor.from_config(self._config(), self._filepath / "weights.pt")

    def save(self, data: LazyFeatureExtractor) -> None:
        """Fit and write the extractor, unless the same one is saved."""
        if self._exists() and self._was_made_by(data.made_by):
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
        """Return the fingerprint of the saved extractor's provenance."""
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            return provenance_of(self._config()["made_by"]).fingerprint

    def _was_made_by(self, made_by: Provenance) -> bool:
        """Return whether the saved extractor was made by the same parameters and inputs, and is not damaged."""
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
