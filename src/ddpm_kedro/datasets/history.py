"""The history of a training run on disk."""

import csv
from io import StringIO

from kedro_datasets._typing import TablePreview

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.training.run import Row


class HistoryDataset(LocalDataset[list[Row], list[Row]]):
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

    def preview(self, nrows: int = 100) -> TablePreview:
        """The last rows as a table, for Kedro-Viz."""
        rows = self.load()[-nrows:]
        columns = list(rows[0]) if rows else []
        return TablePreview(
            {"index": list(range(len(rows))), "columns": columns, "data": [list(r.values()) for r in rows]}
        )
