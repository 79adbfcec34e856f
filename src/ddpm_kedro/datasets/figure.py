"""Pictures that Kedro-Viz shows."""

import base64
from io import BytesIO

from PIL import Image

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reading
from ddpm_kedro.kedro_adapter import ImagePreview


class FigureDataset(FileDataset[Image.Image, Image.Image]):
    """A PNG file."""

    def load(self) -> Image.Image:
        """The picture, read whole."""
        with reading(self._filepath, "`kedro run` makes it again."), Image.open(self._filepath) as picture:
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


class OptionalFigureDataset(FileDataset[Image.Image, Image.Image | None]):
    """A picture of any format that a person may have put there; None where nobody has."""

    def load(self) -> Image.Image | None:
        """The picture, read whole.

        Raises:
            UserError: where the file is no picture.
        """
        if not self._exists():
            return None
        try:
            with Image.open(self._filepath) as picture:
                picture.load()
                return picture
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{self._filepath} cannot be read as a picture: {error}") from error

    def save(self, data: Image.Image) -> None:
        """Write as PNG."""
        with atomic_write(self._filepath) as file:
            data.save(file, format="PNG")
