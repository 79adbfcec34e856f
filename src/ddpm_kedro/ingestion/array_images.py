"""Collections of images that are rows of an array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Inspection, LabelledImage, Probe
from ddpm_kedro.ingestion.decoding import convert_pixels, inspect_image, to_pil


class ArrayImages(ImageCollection):
    """Rows of an array of images (N, H, W, C) uint8."""

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:  # noqa: D102
        return f"image {index}"

    def probe(self, index: int) -> Probe:  # noqa: D102
        return Probe(*self.images.shape[1:])

    def inspect(self, index: int) -> Inspection:  # noqa: D102
        return inspect_image(to_pil(self.images[index]))

    def read(self, index: int, target: ImageFormat) -> LabelledImage:  # noqa: D102
        pixels = self.images[index]
        if pixels.shape != target.shape:
            pixels = convert_pixels(pixels, target)
        return LabelledImage(pixels, -1 if self.labels is None else int(self.labels[index]))


@dataclass(frozen=True)
class InMemoryImages(ArrayImages):
    """Images and labels that are in memory."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    class_names: Sequence[str] = ()
    in_memory = True
