"""Collections of images. Every source returns its images in this form, similar to PyTorch's map-style datasets."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Fit = Literal["crop", "pad", "exact"]
TRANSPARENT = "with transparency"
COLOUR = "in colour, made grey"
UPRIGHT = "turned as EXIF says"
SRGB = "converted to sRGB"
CLIPPED = "values clipped"
"""Treatments of images, which the report counts."""


class RejectedImageError(Exception):
    """Raised for a file that gives no image.

    The message is a short reason; files with the same problem have the same message.
    """


@dataclass(frozen=True)
class ImageFormat:
    """The common format of all images of a store, with height and width in pixels.

    Attributes:
        channels: number of channels: 1 grey, 3 colour, 4 colour with transparency.
        fit: treatment of an image with another aspect ratio: it is cropped, padded or stretched (exact).
        background: red, green and blue of the padding and of the colour behind transparent pixels.
        max_pixels: images with more pixels are rejected before they are decoded.
        value_bits: number of bits that the values of 16-bit images use: 2**value_bits - 1 becomes 255. None if no such
            image is known; then 65,535 becomes 255.
    """

    height: int
    width: int
    channels: int
    fit: Fit
    background: tuple[int, int, int]
    max_pixels: int
    value_bits: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.height, self.width, self.channels


class Probe(NamedTuple):
    """The size and channels of an image, and whether it is grey with more than 8 bits, from its header alone."""

    height: int
    width: int
    channels: int
    deep: bool = False


class Inspection(NamedTuple):
    """What the pixels of an image contain.

    Attributes:
        colour: whether any pixel is not grey.
        bits: number of bits of the largest value, for a grey image with more than 8 bits; otherwise 0.
    """

    colour: bool
    bits: int = 0


class Original(NamedTuple):
    """An image as stored in a file.

    Attributes:
        height, width: size in pixels.
        kind: format and mode as Pillow calls them: ``JPEG RGB``.
        treatments: the conversions of this file that few files need: TRANSPARENT, UPRIGHT, …
    """

    height: int
    width: int
    kind: str
    treatments: tuple[str, ...] = ()


class LabelledImage(NamedTuple):
    """Pixels (H, W, C) uint8 in the common format, the class or -1, and the original image if it came from a file."""

    pixels: NDArray[np.uint8]
    label: int
    original: Original | None = None


class ImageCollection(ABC):
    """Images that are probed and read one by one, similar to a map-style ``torch.utils.data.Dataset``.

    Subclasses are frozen dataclasses. Only the fields are sent to the decoding processes. Keep open files and arrays in
    a ``cached_property``, so that each process opens its own.

    Attributes:
        class_names: names of the classes; empty if the images have no classes.
        labels: classes, (N,) int64, -1 for none; None if the labels are known only after the images were read.
        in_memory: whether the images are in memory, so that all of them become one shard.
    """

    class_names: Sequence[str]
    labels: NDArray[np.int64] | None = None
    in_memory: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name of an image, for reports."""

    @abstractmethod
    def probe(self, index: int) -> Probe:
        """Return the size and channels of an image.

        Raises:
            RejectedImageError: if it cannot be read.
        """

    @abstractmethod
    def inspect(self, index: int) -> Inspection:
        """Look at the pixels of an image, decoded at a reduced size if that is faster.

        Raises:
            RejectedImageError: if it cannot be decoded.
        """

    @abstractmethod
    def read(self, index: int, target: ImageFormat) -> LabelledImage:
        """Decode an image into the common format.

        Raises:
            RejectedImageError: if it cannot be decoded.
        """

    def keys(self) -> Iterable[bytes] | None:
        """Return a key per image that stays the same when images are added, or None if the images have no keys."""
        return None

    def take(self, rows: NDArray[np.int64]) -> "ImageCollection":
        """Return a collection of these images only; it is cheap to pickle."""
        return Subset(self, rows)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Subset(ImageCollection):
    """Some images of a collection, similar to ``torch.utils.data.Subset``."""

    collection: ImageCollection
    rows: NDArray[np.int64]

    @property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]  # noqa: D102
        return self.collection.class_names

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:  # noqa: D102
        return self.collection.name(int(self.rows[index]))

    def probe(self, index: int) -> Probe:  # noqa: D102
        return self.collection.probe(int(self.rows[index]))

    def inspect(self, index: int) -> Inspection:  # noqa: D102
        return self.collection.inspect(int(self.rows[index]))

    def read(self, index: int, target: ImageFormat) -> LabelledImage:  # noqa: D102
        return self.collection.read(int(self.rows[index]), target)
