"""Moving pictures."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

MILLISECONDS = 700
LAST = 2500


@dataclass(frozen=True)
class Frames:
    """Pictures of one size, shown one after the other; the last one longer."""

    pictures: list[Image.Image]

    def gif(self) -> bytes:
        """As a GIF that begins again for ever."""
        buffer = BytesIO()
        first, *others = (picture.convert("RGB").quantize(64) for picture in self.pictures)
        duration = [MILLISECONDS] * len(others) + [LAST]
        first.save(buffer, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)
        return buffer.getvalue()
