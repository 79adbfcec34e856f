"""A feature extractor on disk."""

import json
import shutil

import torch

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.metrics.extractor import FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


class FeatureExtractorDataset(LocalDataset[LazyFeatureExtractor, FeatureExtractor]):
    """A folder with ``weights.pt`` and ``config.json``, which is written last.

    One that is already there, made by the same, is neither fitted nor written.
    """

    def load(self) -> FeatureExtractor:
        """The extractor, on the CPU."""
        if not self._exists():
            raise UserError(f"No feature extractor in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        config = json.loads((self._filepath / "config.json").read_text())
        return FeatureExtractor.from_config(config, self._filepath / "weights.pt")

    def save(self, data: LazyFeatureExtractor) -> None:
        """Fit and write, unless the same is there."""
        if self._exists() and self._made_by() == data.made_by:
            return
        extractor = data.read()
        shutil.rmtree(self._filepath, ignore_errors=True)
        with atomic_write(self._filepath / "weights.pt") as file:
            torch.save(extractor.state(), file)
        with atomic_write(self._filepath / "config.json") as file:
            file.write(json.dumps(extractor.config(), indent=2).encode() + b"\n")

    def fingerprint(self) -> str:
        """That of what made the saved one."""
        return self._made_by().fingerprint

    def _made_by(self) -> Provenance:
        return Provenance(**json.loads((self._filepath / "config.json").read_text())["made_by"])

    def _exists(self) -> bool:
        return (self._filepath / "config.json").exists()
