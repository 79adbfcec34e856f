"""Animations that Kedro-Viz shows."""

import base64

from PIL import Image, ImageSequence

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.files import reading
from ddpm_kedro.kedro_adapter import ImagePreview
from ddpm_kedro.reporting.animation import Frames


class AnimationDataset(FileDataset[Frames, Frames]):
    """Store an animation in a GIF file."""

    def load(self) -> Frames:
        """Load all frames."""
        with reading(self._filepath, "`kedro run` makes it again."), Image.open(self._filepath) as animation:
            return Frames([frame.convert("RGB") for frame in ImageSequence.Iterator(animation)])

    def save(self, data: Frames) -> None:
        """Write all frames."""
        with atomic_write(self._filepath) as file:
            file.write(data.gif())

    def preview(self) -> ImagePreview:
        """Return the animation as base64 for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode())
