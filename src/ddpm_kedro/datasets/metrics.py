"""Metrics on disk."""

from ddpm_kedro.datasets.base import FileDataset, write_document
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import provenance_of, read_document, reading
from ddpm_kedro.kedro_adapter import TablePreview
from ddpm_kedro.metrics.table import COLUMNS, Metrics


class MetricsDataset(FileDataset[Metrics, Metrics]):
    """Store metrics in a JSON file."""

    def load(self) -> Metrics:
        """Load the metrics."""
        if not self._exists():
            raise UserError(f"No metrics in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            content = read_document(self._filepath)
            metrics = Metrics.from_dict(content, provenance_of(content["made_by"]))
            metrics.rows()
            return metrics

    def save(self, data: Metrics) -> None:
        """Write the metrics."""
        write_document(self._filepath, data.as_dict())

    def preview(self) -> TablePreview:
        """Return the metrics as a table for Kedro-Viz."""
        rows = self.load().rows()
        return TablePreview({"index": list(range(len(rows))), "columns": list(COLUMNS), "data": rows})
