"""The history of a training run on disk."""

import csv
from io import StringIO
from pathlib import Path

from kedro_datasets._typing import PlotlyPreview

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.datasets.reading import reading
from ddpm_kedro.errors import UserError
from ddpm_kedro.training.run import Row


class HistoryDataset(FileDataset[list[Row], list[Row]]):
    """A CSV file, one line a report; every save writes the whole history."""

    def load(self) -> list[Row]:
        """One dictionary a line."""
        with reading(self._filepath, "`kedro run --pipelines model_training` writes it again from the checkpoint."):
            return read_history(self._filepath)

    def save(self, data: list[Row]) -> None:
        """Write all rows; floats keep every digit."""
        text = StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(data[0]) if data else [])
        writer.writeheader()
        writer.writerows(data)
        with atomic_write(self._filepath) as file:
            file.write(text.getvalue().encode())

    def preview(self) -> PlotlyPreview:
        """The curves so far, for Kedro-Viz: also while a training goes on."""
        from ddpm_kedro.reporting.curves import training_curves  # noqa: PLC0415  plotly takes a while

        return PlotlyPreview(training_curves(self.load()).to_plotly_json())


def read_history(path: Path) -> list[Row]:
    """Read the rows of a history.

    Raises:
        UserError, ValueError, …: see :func:`~ddpm_kedro.datasets.reading.reading`.
    """
    with path.open(newline="") as file:
        rows = csv.DictReader(file, strict=True)
        if "images_seen" not in (rows.fieldnames or []) and rows.fieldnames != []:  # [] is of a history without rows
            raise UserError("it has no column images_seen")
        return [{name: float(value) for name, value in row.items()} for row in rows]
