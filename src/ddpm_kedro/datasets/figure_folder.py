"""Many pictures in one folder."""

from collections.abc import Callable
from typing import Any

from kedro_datasets.partitions import PartitionedDataset

from ddpm_kedro.datasets.figure import FigureDataset
from ddpm_kedro.kedro_adapter import ImagePreview, newest_partition


class FigureFolderDataset(PartitionedDataset):  # type: ignore[misc]
    """Kedro's partitions, but loading gives an empty dictionary where there is no picture yet."""

    def load(self) -> dict[str, Callable[[], Any]]:
        """A function a picture, by its name."""
        found: dict[str, Callable[[], Any]] = super().load() if self.exists() else {}
        return found

    def preview(self) -> ImagePreview:
        """The newest picture, for Kedro-Viz: also while a training goes on."""
        return FigureDataset(**newest_partition(self)).preview()
