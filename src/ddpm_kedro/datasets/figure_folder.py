"""A folder of figures."""

from collections.abc import Callable
from typing import Any

from kedro_datasets.partitions import PartitionedDataset

from ddpm_kedro.datasets.figure import FigureDataset
from ddpm_kedro.kedro_adapter import ImagePreview, newest_partition


class FigureFolderDataset(PartitionedDataset):  # type: ignore[misc]
    """Store figures as partitions; loading an empty folder returns an empty dictionary."""

    def load(self) -> dict[str, Callable[[], Any]]:
        """Return one function per figure that loads it, by name."""
        found: dict[str, Callable[[], Any]] = super().load() if self.exists() else {}
        return found

    def preview(self) -> ImagePreview:
        """Return the newest figure for Kedro-Viz, also during a training."""
        return FigureDataset(**newest_partition(self)).preview()
