"""What is found out about images while they are stored: statistics, hashes, and files that gave none."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import Original, Shard
from ddpm_kedro.ingestion.listing import hints

HASH = 16  # bytes of an image's hash
TOLD = 10  # reasons of rejected files in a message
SUMMED_AT_ONCE = 64
SIDES = ("height", "width")
POWERS = 32  # of two, that a side of a picture may have
NEARLY_EMPTY = 2.0  # of 255, the deviation of a picture's values from one another


def known(shard: Shard) -> dict[str, Any]:
    """Of each image, and of all together. The sums are exact: they do not depend on how the shards are divided."""
    count = len(shard.images)
    pixels, channels = math.prod(shard.images.shape[1:3]), shard.images.shape[3]
    images = np.ascontiguousarray(shard.images)
    of_images, of_channels = _sums(images)
    means, squares = of_images / (pixels * channels)
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    rejected = Counter(reason for _, reason in shard.rejected)
    examples = {reason: name for name, reason in reversed(shard.rejected)}
    return {
        "summary": {
            "images": count,
            "nearly_empty": int((deviations < NEARLY_EMPTY).sum()),
            "values": count * pixels,
            "sum": of_channels[0].tolist(),
            "squares": of_channels[1].tolist(),
            "rejected": {reason: [number, examples[reason]] for reason, number in rejected.items()},
            "originals": _known_originals(shard.originals),
        },
        "labels": shard.labels.tolist(),
        "names": list(shard.names),
        "hashes": [hashlib.blake2b(image, digest_size=HASH).hexdigest() for image in images],
        "rejected": [list(line) for line in shard.rejected],
    }


def repeated(hashes: NDArray[np.bytes_]) -> int:
    """How many of them came before."""
    return len(hashes) - len(np.unique(hashes))


def _known_originals(originals: Sequence[Original]) -> dict[str, Any]:
    """Kinds and sizes, in so few numbers that those of any number of pictures add up."""
    if not originals:
        return {}
    kinds, shorter_sides = Counter[str](), [0] * POWERS
    for (height, width, kind), often in (alike := Counter(originals)).items():  # of most sets all are alike
        kinds[kind] += often
        shorter_sides[min(height, width).bit_length() - 1] += often
    by_area = sorted((height * width, height, width) for height, width, _ in alike)
    return {"kinds": kinds, "shorter_sides": shorter_sides, "smallest": by_area[0], "largest": by_area[-1]}


def _originals(known: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all shards together, to be read by people; nothing where their pictures were of no files."""
    if not known or not all(known):
        return {}
    kinds: Counter[str] = sum((Counter(each["kinds"]) for each in known), Counter())
    shorter_sides = np.sum([each["shorter_sides"] for each in known], axis=0)
    smallest, largest = min(each["smallest"] for each in known), max(each["largest"] for each in known)
    found = {
        "kinds": dict(kinds.most_common()),
        "shorter_side": {
            f"{2**power} to {2 ** (power + 1) - 1}": int(count) for power, count in enumerate(shorter_sides) if count
        },
        "smallest": dict(zip(SIDES, smallest[1:], strict=True)),
        "largest": dict(zip(SIDES, largest[1:], strict=True)),
    }
    return {"originals": found}


def _sums(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and sums of squares (2, N) of each image (N, H, W, C), and (2, C) of each channel of all.

    Whole rows of numbers are added up, a few images at a time: several times as fast as channel by channel.
    """
    count, channels = len(images), images.shape[-1]
    rows = images.reshape(count, math.prod(images.shape[1:]))
    of_images, of_values = np.empty((2, count)), np.zeros((2, rows.shape[1]))
    for first in range(0, count, SUMMED_AT_ONCE):
        part = slice(first, first + SUMMED_AT_ONCE)
        some = rows[part].astype(np.float64)  # exact: below 2**53
        for which, powers in enumerate((some, some * some)):
            of_images[which, part] = powers.sum(axis=1)
            of_values[which] += powers.sum(axis=0)
    return of_images, of_values.reshape(2, -1, channels).sum(axis=1)


def facts_of(made: list[dict[str, Any]], duplicates: int) -> dict[str, Any]:
    """Counts, statistics of the channels, and pictures that came twice."""
    totals = {name: sum(each[name] for each in made) for name in ("images", "nearly_empty", "values")}
    rejected: Counter[str] = Counter()
    for each in made:
        rejected.update({reason: number for reason, (number, _) in each["rejected"].items()})
    filled = [each for each in made if each["images"]]
    mean, square = (
        sum((np.array(each[name], dtype=np.float64) for each in filled), np.zeros(1)) / max(1, totals["values"])
        for name in ("sum", "squares")
    )
    return {
        "images": totals["images"],
        "rejected": dict(rejected.most_common()),
        "rejected_examples": {
            reason: name for each in reversed(made) for reason, (_, name) in each["rejected"].items()
        },
        "duplicates": duplicates,
        "nearly_empty": totals["nearly_empty"],
        "mean_of_255": [round(float(value), 2) for value in mean],
        "deviation_of_255": [round(float(value), 2) for value in np.sqrt(np.maximum(square - mean**2, 0))],
        **_originals([each["originals"] for each in filled]),
    }


def check_rejected(facts: dict[str, Any], most: float) -> None:
    """Whether enough files gave an image.

    Args:
        facts: of :func:`facts_of`.
        most: a share of all files.

    Raises:
        UserError: where more than ``most`` of them gave none, with the most frequent reasons.
    """
    bad = sum(facts["rejected"].values())
    if facts["images"] and bad <= most * (bad + facts["images"]):
        return
    examples = facts.get("rejected_examples", {})  # of stores that were made before there were any
    reasons = "".join(
        f"\n{number:>8,}  {reason}, such as {examples.get(reason, '…')}"
        for reason, number in islice(facts["rejected"].items(), TOLD)
    )
    raise UserError(
        f"{bad:,} of {bad + facts['images']:,} files gave no image, more than images.max_rejected_fraction = {most:g} "
        f"allows. The most frequent reasons:{reasons}\n"
        f"Mend or remove the files, or allow more.{hints(facts['rejected'])}"
    )
