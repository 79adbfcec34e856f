"""The history of a training run on disk."""

import csv
from io import StringIO
from pathlib import Path

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reading
from ddpm_kedro.kedro_adapter import PlotlyPreview
from ddpm_kedro.training.run import Row


class HistoryDataset(FileDataset[list[Row], list[Row]]):
    """A CSV file with one line per report; every save writes the whole history."""

    def load(self) -> list[Row]:
        """Load one dictionary per line."""
        with reading(self._filepath, "`kedro run --pipelines model_training` writes it again from the checkpoint."):
            return read_history(self._filepath)

    def save(self, data: list[Row]) -> None:
        """Write all rows, with every digit of floats."""
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(data[0]) if data else [])
        writer.writeheader()
        writer.writerows(data)
        write_text(self._filepath, text.getvalue())

    def preview(self) -> PlotlyPreview:
        """Return the curves so far, for Kedro-Viz, also during a training."""
        from ddpm_kedro.reporting.curves import training_curves  # noqa: PLC0415  plotly takes a while

        return PlotlyPreview(training_curves(self.load()).to_plotly_json())


def read_history(path: Path) -> list[Row]:
    """Read the rows of a history; call it within :func:`~ddpm_kedro.files.reading`, which explains errors."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file, strict=True)
        if "images_seen" not in (rows.fieldnames or []) and rows.fieldnames != []:  # [] is a history without rows
            raise UserError("it has no column images_seen")
        return [{name: float(value) for name, value in row.items()} for row in rows]
