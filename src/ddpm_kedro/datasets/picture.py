"""Pictures that Kedro-Viz shows."""

import base64
from io import BytesIO

from kedro_datasets._typing import ImagePreview
from PIL import Image

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset


class PictureDataset(LocalDataset[Image.Image, Image.Image]):
    """A PNG file."""

    def load(self) -> Image.Image:
        """The picture, read whole."""
        with Image.open(self._filepath) as picture:
            picture.load()
            return picture

    def save(self, data: Image.Image) -> None:
        """Write as PNG."""
        with atomic_write(self._filepath) as file:
            data.save(file, format="PNG")

    def preview(self) -> ImagePreview:
        """The picture as base64, for Kedro-Viz."""
        buffer = BytesIO()
        self.load().save(buffer, format="PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())
