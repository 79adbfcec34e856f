"""Figures of merit on disk."""

import json
from dataclasses import asdict

from kedro_datasets._typing import TablePreview

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.metrics.table import COLUMNS, Metrics
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


class MetricsDataset(FileDataset[Metrics, Metrics]):
    """A JSON file."""

    def load(self) -> Metrics:
        """The figures."""
        if not self._exists():
            raise UserError(f"No metrics in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        content = json.loads(self._filepath.read_text())
        return Metrics(**{**content, "made_by": Provenance(**content["made_by"])})

    def save(self, data: Metrics) -> None:
        """Write all."""
        with atomic_write(self._filepath) as file:
            file.write(json.dumps(asdict(data), indent=2).encode() + b"\n")

    def preview(self) -> TablePreview:
        """The figures as a table, for Kedro-Viz."""
        rows = self.load().rows()
        return TablePreview({"index": list(range(len(rows))), "columns": list(COLUMNS), "data": rows})
