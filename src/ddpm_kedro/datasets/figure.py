"""Figures that Kedro-Viz shows."""

import base64
from collections.abc import Callable
from typing import Any

from kedro_datasets.partitions import PartitionedDataset
from PIL import Image

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reading, shown_path
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.kedro_adapter import ImagePreview, newest_partition
from ddpm_kedro.provenance import redact


class FigureDataset(FileDataset[Image.Image, Image.Image]):
    """Store a figure in a PNG file."""

    def load(self) -> Image.Image:
        """Load the figure."""
        with reading(self._filepath, "`kedro run` makes it again."), Image.open(self._filepath) as figure:
            figure.load()
            return figure

    def save(self, data: Image.Image) -> None:
        """Write as PNG."""
        with atomic_write(self._filepath) as file:
            data.save(file, format="PNG")

    def preview(self) -> ImagePreview:
        """Return the figure as base64 for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode())


class OptionalFigureDataset(FileDataset[GivenImage, GivenImage | None]):
    """Load the file of an image that a user may give, in any format; None if the user gives no image.

    It is not decoded: the node converts it as ingestion converts images.
    """

    def load(self) -> GivenImage | None:
        """Read the file."""
        if not self._exists():
            return None
        try:
            return GivenImage(shown_path(redact(self._url)), self._filepath.read_bytes())
        except OSError as error:
            raise UserError(f"{self._filepath} cannot be read: {error.strerror}.") from error

    def save(self, data: GivenImage) -> None:
        """Write the file as it is."""
        with atomic_write(self._filepath) as file:
            file.write(data.data)


class FigureFolderDataset(PartitionedDataset):  # type: ignore[misc]
    """Store figures as partitions; loading an empty folder returns an empty dictionary."""

    def load(self) -> dict[str, Callable[[], Any]]:
        """Return one function per figure, by name, that loads it."""
        found: dict[str, Callable[[], Any]] = super().load() if self.exists() else {}
        return found

    def preview(self) -> ImagePreview:
        """Return the newest figure for Kedro-Viz, also during a training."""
        return FigureDataset(**newest_partition(self)).preview()
