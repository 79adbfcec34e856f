"""Many pictures in one folder."""

from collections.abc import Callable
from typing import Any

from kedro_datasets._typing import ImagePreview
from kedro_datasets.partitions import PartitionedDataset

from ddpm_kedro.datasets.figure import FigureDataset


class FigureFolderDataset(PartitionedDataset):  # type: ignore[misc]
    """Kedro's partitions, but loading gives an empty dictionary where there is no picture yet."""

    def load(self) -> dict[str, Callable[[], Any]]:
        """A function a picture, by its name."""
        found: dict[str, Callable[[], Any]] = super().load() if self._list_partitions() else {}
        return found

    def preview(self) -> ImagePreview:
        """The newest picture, for Kedro-Viz: also while a training goes on."""
        newest = max(self._list_partitions(), key=lambda path: str(self._filesystem.modified(path)))
        return FigureDataset(**self._dataset_config, filepath=self._join_protocol(newest)).preview()
