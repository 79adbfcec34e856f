"""Animations: images shown one after the other."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

MILLISECONDS = 700
MILLISECONDS_OF_LAST = 2500


@dataclass(frozen=True)
class Frames:
    """Images of one size, shown one after the other; the last one longer."""

    images: list[Image.Image]

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return self.images[0].width

    def gif(self) -> bytes:
        """Return a GIF that repeats without end."""
        buffer = BytesIO()
        first, *others = (image.convert("RGB").quantize(64) for image in self.images)
        duration = [MILLISECONDS] * len(others) + [MILLISECONDS_OF_LAST]
        first.save(buffer, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
        return buffer.getvalue()
