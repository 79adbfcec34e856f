"""Figures that Kedro-Viz shows."""

import base64
from collections.abc import Callable
from typing import Any

from kedro_datasets.partitions import PartitionedDataset
from PIL import Image

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reading
from ddpm_kedro.kedro_adapter import ImagePreview, newest_partition


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


class OptionalFigureDataset(FileDataset[Image.Image, Image.Image | None]):
    """Load an image of any format that a user may provide; None if the user provides no image."""

    def load(self) -> Image.Image | None:
        """Load the image; raise UserError if the file is not an image."""
        if not self._exists():
            return None
        try:
            with Image.open(self._filepath) as image:
                image.load()
                return image
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{self._filepath} cannot be read as an image: {error}") from error

    def save(self, data: Image.Image) -> None:
        """Write as PNG."""
        with atomic_write(self._filepath) as file:
            data.save(file, format="PNG")


class FigureFolderDataset(PartitionedDataset):  # type: ignore[misc]
    """Store figures as partitions; loading an empty folder returns an empty dictionary."""

    def load(self) -> dict[str, Callable[[], Any]]:
        """Return one function per figure, by name, that loads it."""
        found: dict[str, Callable[[], Any]] = super().load() if self.exists() else {}
        return found

    def preview(self) -> ImagePreview:
        """Return the newest figure for Kedro-Viz, also during a training."""
        return FigureDataset(**newest_partition(self)).preview()
