"""Statistics and hashes of images, computed while they are stored, and counts of rejected files."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.collection import Original
from ddpm_kedro.ingestion.containers import hints
from ddpm_kedro.ingestion.lazy_store import Shard

HASH_BYTES = 16
MAX_REASONS = 10  # reasons for rejected files in a message
BATCH = 64  # images that are added up at once
SIDES = ("height", "width")
POWERS = 32  # number of powers of two into which the sides of images are counted
NEARLY_EMPTY = 2.0  # grey levels of 255: with a smaller standard deviation, an image counts as nearly empty


def describe_shard(shard: Shard) -> dict[str, Any]:
    """Return labels, names and hashes of the images, rejected files, and a summary.

    The sums are exact: they do not depend on how images are divided into shards.
    """
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
            "originals": _summarize_originals(shard.originals),
            "value_bits": shard.value_bits,
        },
        "labels": shard.labels.tolist(),
        "names": list(shard.names),
        "hashes": hash_images(images),
        "rejected": [list(line) for line in shard.rejected],
    }


def hash_images(images: NDArray[np.uint8]) -> list[str]:
    """Return a hash of each image, equal for equal pixels."""
    return [hashlib.blake2b(image, digest_size=HASH_BYTES).hexdigest() for image in np.ascontiguousarray(images)]


def summarize(summaries: list[dict[str, Any]], hashes: NDArray[np.bytes_]) -> dict[str, Any]:
    """Return counts, statistics of the channels, and the number of duplicates, of all shards together."""
    totals = {name: sum(summary[name] for summary in summaries) for name in ("images", "nearly_empty", "values")}
    rejected: Counter[str] = Counter()
    for summary in summaries:
        rejected.update({reason: number for reason, (number, _) in summary["rejected"].items()})
    examples = {reason: name for each in reversed(summaries) for reason, (_, name) in each["rejected"].items()}
    filled = [summary for summary in summaries if summary["images"]]
    mean, square = (
        sum((np.array(summary[name], dtype=np.float64) for summary in filled), np.zeros(1)) / max(1, totals["values"])
        for name in ("sum", "squares")
    )
    return {
        "images": totals["images"],
        "rejected": dict(rejected.most_common()),
        "rejected_examples": examples,
        "duplicates": len(hashes) - len(np.unique(hashes)),
        "nearly_empty": totals["nearly_empty"],
        "mean_of_255": [round(float(value), 2) for value in mean],
        "deviation_of_255": [round(float(value), 2) for value in np.sqrt(np.maximum(square - mean**2, 0))],
        "value_bits": next((summary["value_bits"] for summary in filled if summary.get("value_bits")), None),
        **_merge_originals([summary["originals"] for summary in filled]),
    }


def check_rejected(statistics: dict[str, Any], max_fraction: float) -> None:
    """Raise a UserError if more than this fraction of the files were rejected, with the most frequent reasons."""
    bad = sum(statistics["rejected"].values())
    if statistics["images"] and bad <= max_fraction * (bad + statistics["images"]):
        return
    examples = statistics.get("rejected_examples", {})  # earlier versions wrote none
    reasons = "".join(
        f"\n{number:>8,}  {reason}, such as {examples.get(reason, '…')}"
        for reason, number in islice(statistics["rejected"].items(), MAX_REASONS)
    )
    raise UserError(
        f"{bad:,} of {bad + statistics['images']:,} files gave no image, more than images.max_rejected_fraction = "
        f"{max_fraction:g} allows. The most frequent reasons:{reasons}\n"
        f"Repair or remove the files, or allow more.{hints(statistics['rejected'])}"
    )


def _summarize_originals(originals: Sequence[Original]) -> dict[str, Any]:
    """Count kinds and sizes in a few numbers, so that the counts of many shards can be added."""
    if not originals:
        return {}
    kinds, treatments, shorter_sides = Counter[str](), Counter[str](), [0] * POWERS
    for original, number in (counts := Counter(originals)).items():  # usually all sizes are equal
        kinds[original.kind] += number
        treatments.update(dict.fromkeys(original.treatments, number))
        shorter_sides[min(original.height, original.width).bit_length() - 1] += number
    by_area = sorted((each.height * each.width, each.height, each.width) for each in counts)
    sizes = {"shorter_sides": shorter_sides, "smallest": by_area[0], "largest": by_area[-1]}
    return {"kinds": kinds, "treatments": treatments, **sizes}


def _merge_originals(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the kinds and sizes of all shards, readable for people; empty if the images come from an array."""
    if not summaries or not all(summaries):
        return {}
    kinds, treatments = (
        sum((Counter(summary.get(name, {})) for summary in summaries), Counter[str]())  # earlier: no treatments
        for name in ("kinds", "treatments")
    )
    shorter_sides = np.sum([summary["shorter_sides"] for summary in summaries], axis=0)
    smallest = min(summary["smallest"] for summary in summaries)
    largest = max(summary["largest"] for summary in summaries)
    originals = {
        "kinds": dict(kinds.most_common()),
        "treatments": dict(treatments.most_common()),
        "shorter_side": {
            f"{2**power} to {2 ** (power + 1) - 1}": int(count) for power, count in enumerate(shorter_sides) if count
        },
        "smallest": dict(zip(SIDES, smallest[1:], strict=True)),
        "largest": dict(zip(SIDES, largest[1:], strict=True)),
    }
    return {"originals": originals}


def _sums(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums and sums of squares: (2, N) of each image (N, H, W, C), and (2, C) of each channel of all images.

    Whole rows are added up, a few images at a time: several times as fast as channel by channel.
    """
    count, channels = len(images), images.shape[-1]
    rows = images.reshape(count, math.prod(images.shape[1:]))
    of_images, of_values = np.empty((2, count)), np.zeros((2, rows.shape[1]))
    for first in range(0, count, BATCH):
        batch = slice(first, first + BATCH)
        values = rows[batch].astype(np.float64)  # exact: below 2**53
        for which, powers in enumerate((values, values * values)):
            of_images[which, batch] = powers.sum(axis=1)
            of_values[which] += powers.sum(axis=0)
    return of_images, of_values.reshape(2, -1, channels).sum(axis=1)
