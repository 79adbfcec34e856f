"""Probe some images of a source, and choose the format that all images are converted to."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import ImageCollection, ImageFormat, Probe, RejectedImageError
from ddpm_kedro.ingestion.containers import hints
from ddpm_kedro.ingestion.decoding import without_warnings
from ddpm_kedro.parameters import ImagesParameters

PROBED = 256  # largest number of images to probe
INSPECTED_PIXELS = 2**27  # of all inspected images together, unless there are fewer than FEWEST
FEWEST = 16  # smallest number of images to inspect
FEW_IN_COLOUR = 0.05  # fraction of the images: if fewer are in colour, all become grey
SIDES = (16, 32, 48, 64)
"""Sides in pixels to choose from if the sizes differ: a first model learns them in reasonable time."""
LARGER_SIDES = (32, 64, 128, 256, 512)
Looks = list[list[int]]
"""Height, width, channels (from the header) and number of images with them."""


@without_warnings()
def probe_images(collection: ImageCollection, at_most: int = PROBED) -> Looks:
    """Probe images at equal distances.

    Returns:
        Height, width, channels and number of images with them, the most frequent first.

    Raises:
        UserError: if no image can be read; the message has the reasons.
    """
    return _count(_probe(collection, at_most).values())


@without_warnings()
def probe_source(collection: ImageCollection, at_most: int = PROBED) -> dict[str, Any]:
    """Probe images at equal distances, and inspect the pixels of files in colour or with more than 8 bits.

    Returns:
        ``looks``: the result of :func:`probe_images`; ``pixels``: ``inspected``, the number of inspected images whose
        header says colour; ``colour``, how many of these are not grey; ``bits``, the number of bits
        of the largest value in images with more than 8 bits, or None without such images.

    Raises:
        UserError: if no image can be read; the message has the reasons.
    """
    probes = _probe(collection, at_most)
    return {"looks": _count(probes.values()), "pixels": _inspect(collection, probes)}


def choose_format(looks: Looks, images: ImagesParameters, pixels: dict[str, Any] | None = None) -> ImageFormat:
    """Choose the format of all images: from the parameters, or else from the result of :func:`probe_source`.

    If all have the same small size, it is kept; else the largest of SIDES is chosen that half of the images have.
    The images become grey if less than FEW_IN_COLOUR of them are in colour. Without ``pixels``, they become grey if
    all headers say so.

    Raises:
        UserError: if there are no probes.
    """
    if not looks:
        raise UserError("None of the images probed can be read: check that the files are images.")
    if images.size is None:
        height, width = _usual_size(looks)
    else:
        height, width = images.size if isinstance(images.size, tuple) else (images.size, images.size)
    channels = images.channels or _usual_channels(looks, images, pixels or {})
    found = (pixels or {}).get("bits")
    bits = images.value_bits or (None if found is None else min(max(found, 8), 16))
    return ImageFormat(height, width, channels, images.fit, images.background, images.max_pixels, bits)


def describe_format(
    target: ImageFormat, looks: Looks, images: ImagesParameters, pixels: dict[str, Any]
) -> Iterator[str]:
    """Yield sentences about the format that was chosen from the result of :func:`probe_source`."""
    size = f"{target.height} high and {target.width} wide"
    yield f"Images become {size}, images.channels={target.channels}, images.fit={target.fit}."
    if images.size is None and (usual := usual_side(looks)) >= 2 * max(target.height, target.width):
        yield f"Half of the files have {usual:,} pixels or more on their shorter side (images.size)."
    inspected, colour, bits = pixels.get("inspected", 0), pixels.get("colour", 0), target.value_bits or 16
    if images.channels is None and target.channels == 1 and inspected and not colour:
        yield f"{inspected:,} images in files for colour were inspected; all of them are grey."
    elif images.channels is None and target.channels == 1 and inspected:
        share = fraction_in_colour(looks, pixels)
        yield f"About {share:.1%} of the images lose their colour; images.channels=3 keeps it."
    if pixels.get("bits") is not None and bits < 16:
        yield f"The 16-bit images use {bits} bits (images.value_bits): {2**bits - 1:,} becomes 255."


def format_parts(looks: Looks, images: ImagesParameters, pixels: dict[str, Any] | None) -> list[str]:
    """Return what the pixels change in the format, for the fingerprint of a store.

    It is empty for most images, so that the stores that earlier versions made of them stay valid.
    """
    chosen, from_headers = choose_format(looks, images, pixels), choose_format(looks, images)
    channels = [f"{chosen.channels} channels"] if chosen.channels != from_headers.channels else []
    return channels + ([f"{chosen.value_bits} bits"] if chosen.value_bits not in {None, 16} else [])


def fraction_in_colour(looks: Looks, pixels: dict[str, Any]) -> float:
    """Return the estimated fraction of the images that are in colour, from their headers and the inspected pixels."""
    in_files = sum(count for *_, channels, count in looks if channels > 1) / sum(count for *_, count in looks)
    inspected = pixels.get("inspected", 0)
    return in_files * (pixels["colour"] / inspected if inspected else 1)


def fractions_at_least(looks: Looks) -> dict[int, float]:
    """Return, for each of LARGER_SIDES, the fraction of the probed images whose shorter side is at least as long."""
    total = sum(count for *_, count in looks)
    return {
        side: round(sum(count for height, width, _, count in looks if min(height, width) >= side) / total, 3)
        for side in LARGER_SIDES
    }


def usual_side(looks: Looks) -> int:
    """Return the length in pixels that the shorter sides of half of the probed images have at least."""
    sides = sorted(min(height, width) for height, width, _, count in looks for _ in range(count))
    return sides[len(sides) // 2]


def _probe(collection: ImageCollection, at_most: int) -> dict[int, Probe]:
    """Return the probes of images at equal distances, by their indices."""
    probes, reasons = dict[int, Probe](), Counter[str]()
    count = len(collection)
    for index in np.linspace(0, count - 1, min(at_most, count)).astype(int).tolist():
        try:
            probes[index] = collection.probe(index)
        except RejectedImageError as error:  # reported when all images are read
            reasons[str(error)] += 1
    if reasons and not probes:
        reason = ", ".join(f"{reason} ({number:,})" for reason, number in reasons.most_common())
        raise UserError(f"None of the {reasons.total():,} images probed can be read: {reason}.{hints(reasons)}")
    return probes


def _count(probes: Iterable[Probe]) -> Looks:
    counted = Counter((probe.height, probe.width, probe.channels) for probe in probes)
    return [[*size, number] for size, number in counted.most_common()]


def _inspect(collection: ImageCollection, probes: dict[int, Probe]) -> dict[str, Any]:
    """Inspect the pixels of evenly spaced images among the probed ones, fewer of large images."""
    in_colour, deep = list[bool](), list[int]()
    for index in _evenly_spaced({index: probe for index, probe in probes.items() if probe.channels > 1 or probe.deep}):
        try:
            found = collection.inspect(index)
        except RejectedImageError:  # reported when all images are read
            continue
        if probes[index].deep:
            deep.append(found.bits)
        else:
            in_colour.append(found.colour)
    return {"inspected": len(in_colour), "colour": sum(in_colour), "bits": max(deep, default=None)}


def _evenly_spaced(probes: dict[int, Probe]) -> list[int]:
    """Return some of the indices, so that the images have about INSPECTED_PIXELS together."""
    largest = max((probe.height * probe.width for probe in probes.values()), default=1)
    count = min(len(probes), max(FEWEST, INSPECTED_PIXELS // largest))
    indices = [*probes]
    return [indices[place] for place in np.linspace(0, len(indices) - 1, count).astype(int)]


def _usual_channels(looks: Looks, images: ImagesParameters, pixels: dict[str, Any]) -> int:
    """Return 1, 3, or 4 for an array with transparency; a coloured background needs colour."""
    most = max(channels for *_, channels, _ in looks)
    grey_background = len(set(images.background)) == 1
    if most == 3 and pixels.get("inspected") and grey_background and fraction_in_colour(looks, pixels) < FEW_IN_COLOUR:
        return 1
    return most


def _usual_size(looks: Looks) -> tuple[int, int]:
    sizes = {(height, width) for height, width, *_ in looks}
    if len(sizes) == 1 and max(max(sizes)) <= SIDES[-1]:
        return sizes.pop()
    side = max((each for each in SIDES if each <= usual_side(looks)), default=SIDES[0])
    return side, side
