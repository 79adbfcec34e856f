"""Probe some images of a source, and choose the format that all images are converted to."""

from collections import Counter

import numpy as np

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Probe, RejectedImageError
from ddpm_kedro.ingestion.containers import hints
from ddpm_kedro.ingestion.decoding import without_warnings
from ddpm_kedro.parameters import ImagesParameters

PROBED = 256  # largest number of images to probe
SIDES = (16, 32, 48, 64)
"""Sides in pixels to choose from if the sizes differ: a first model learns them in reasonable time."""


@without_warnings()
def probe_images(collection: ImageCollection, at_most: int = PROBED) -> list[list[int]]:
    """Probe images at equal distances.

    Returns:
        Height, width, channels and number of images with them, the most frequent first.

    Raises:
        UserError: if no image can be read; the message has the reasons.
    """
    probes, reasons = Counter[Probe](), Counter[str]()
    count = len(collection)
    for index in np.linspace(0, count - 1, min(at_most, count)).astype(int).tolist():
        try:
            probes[collection.probe(index)] += 1
        except RejectedImageError as error:  # reported when all images are read
            reasons[str(error)] += 1
    if reasons and not probes:
        reason = ", ".join(f"{reason} ({number:,})" for reason, number in reasons.most_common())
        raise UserError(f"None of the {reasons.total():,} images probed can be read: {reason}.{hints(reasons)}")
    return [[probe.height, probe.width, probe.channels, number] for probe, number in probes.most_common()]


def choose_format(probes: list[list[int]], images: ImagesParameters) -> ImageFormat:
    """Choose the format of all images: from the parameters, or else from the probes of :func:`probe_images`.

    If all have the same small size, it is kept; else the largest of SIDES is chosen that half of the images have.
    The images stay grey if all of them are.

    Raises:
        UserError: if there are no probes.
    """
    if not probes:
        raise UserError("None of the images probed can be read: check that the files are images.")
    if images.size is None:
        height, width = _usual_size(probes)
    else:
        height, width = images.size if isinstance(images.size, tuple) else (images.size, images.size)
    channels = images.channels or max(probe[2] for probe in probes)
    return ImageFormat(height, width, channels, images.fit, images.background, images.max_pixels)


def _usual_size(probes: list[list[int]]) -> tuple[int, int]:
    sizes = {(height, width) for height, width, *_ in probes}
    if len(sizes) == 1 and max(max(sizes)) <= SIDES[-1]:
        return sizes.pop()
    sides = sorted(min(height, width) for height, width, _, count in probes for _ in range(count))
    usual = sides[len(sides) // 2]
    side = max((each for each in SIDES if each <= usual), default=SIDES[0])
    return side, side
