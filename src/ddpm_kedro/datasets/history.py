"""The history of a training run on disk."""

import csv
from io import StringIO

from kedro_datasets._typing import PlotlyPreview

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.training.run import Row


class HistoryDataset(FileDataset[list[Row], list[Row]]):
    """A CSV file, one line a report; every save writes the whole history."""

    def load(self) -> list[Row]:
        """One dictionary a line."""
        with self._filepath.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

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
