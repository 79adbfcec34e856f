"""Describe ingested images: as plain data for the report, and in sentences for the log."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.collection import CLIPPED, COLOUR, TRANSPARENT
from ddpm_kedro.ingestion.probing import fraction_in_colour, fractions_at_least
from ddpm_kedro.ingestion.source import Manifest
from ddpm_kedro.provenance import set_name

MAX_SIZES = 20  # most frequent sizes of the source's images in the report
MAX_SHEET = 100  # training images in the contact sheet
MAX_REASONS = 3  # reasons for rejected files in a warning; the report has all reasons
MAX_CLASSES = 20  # classes in a message about missing images
MAX_LETTERS = 110  # letters of the class names in a message
Message = tuple[int, str]
"""Level of logging, and a sentence."""


def choose_shown(labels: NDArray[np.int64] | None, count: int, seed: int) -> NDArray[np.int64]:
    """Return sorted indices of MAX_SHEET random images, or of all if there are fewer; equally many per class.

    Args:
        labels: classes (count,), or None.
        count: number of images.
        seed: seed of the choice.
    """
    rng = np.random.default_rng(seed)
    members = [np.arange(count)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    each = max(1, MAX_SHEET // len(members))
    chosen = [rng.choice(rows, min(each, len(rows)), replace=False, shuffle=False) for rows in members]
    return np.sort(np.concatenate(chosen))


def describe_parts(training: ImageStore, holdout: ImageStore) -> dict[str, dict[str, Any]]:
    """Return counts, sizes, classes and statistics of both parts as plain data."""
    parts = {"training": _describe(training), "holdout": _describe(holdout)}
    if training.hashes is not None and holdout.hashes is not None:
        parts["holdout"]["also_in_training"] = int(np.isin(holdout.hashes, training.hashes).sum())
    return parts


def describe_source(raw_images: Manifest) -> dict[str, Any]:
    """Return what is known of a source as plain data.

    ``sizes_of_some`` counts the sizes of the probed images. ``shorter_side_at_least`` has the fraction of them whose
    shorter side has so many pixels or more. ``in_colour`` is the estimated fraction of images that are not grey.
    """
    known: dict[str, Any] = {name: raw_images[name] for name in ("source", "files", "others") if name in raw_images}
    known |= {"name": set_name(raw_images["path"])} if raw_images.get("path") else {}
    looks = raw_images.get("looks", [])
    if not looks:
        return known
    sizes = {
        f"height {height}, width {width}, {'grey' if channels == 1 else 'colour'}": count
        for height, width, channels, count in looks[:MAX_SIZES]
    }
    sides = {str(side): fraction for side, fraction in fractions_at_least(looks).items()}
    in_colour = round(fraction_in_colour(looks, raw_images.get("pixels", {})), 3)
    return known | {"sizes_of_some": sizes, "shorter_side_at_least": sides, "in_colour": in_colour}


def messages(training: ImageStore, holdout: ImageStore, parts: dict[str, dict[str, Any]]) -> Iterator[Message]:
    """Yield what a person should know about the images, the result of :func:`describe_parts`."""
    if training.class_names:
        yield logging.INFO, _class_counts(parts["training"]["images_per_class"])
    yield from _treatments(training, parts)
    if both := parts["holdout"].get("also_in_training"):
        yield logging.WARNING, f"{both} of {len(holdout)} holdout images are training images, too."
    rejected = sum((Counter(part.get("rejected", {})) for part in parts.values()), Counter[str]())
    if rejected:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in rejected.most_common(MAX_REASONS))
        more = ", and more" if len(rejected) > MAX_REASONS else ""
        files = f"{rejected.total():,} files gave no image"
        yield logging.WARNING, f"{files}: {reasons}{more}. ingestion_report.json lists them."
    for store, level, part, result in (
        (training, logging.WARNING, "training", "the model cannot learn them"),
        (holdout, logging.INFO, "holdout", "they have too few images"),
    ):
        if names := _missing_classes(store):
            listed = ", ".join(names[:MAX_CLASSES]) + (", …" if len(names) > MAX_CLASSES else "")
            yield level, f"{len(names)} classes have no {part} image; {result}: {listed}."


def _class_counts(counts: dict[str, int]) -> str:
    """Return the names of the classes and their numbers of training images, shortened."""
    equal = len(set(counts.values())) == 1
    words = [name if equal else f"{name} {count:,}" for name, count in counts.items()]
    kept = [
        word for word, end in zip(words, np.cumsum([len(word) + 2 for word in words]), strict=True) if end < MAX_LETTERS
    ]
    kept = kept or [f"{words[0][:MAX_LETTERS]}…"]
    more = f" and {len(words) - len(kept):,} more" if len(words) > len(kept) else ""
    each = f" of {next(iter(counts.values())):,} training images" if equal else ", training images"
    return f"{len(words):,} {'class' if len(words) == 1 else 'classes'}{each}: {', '.join(kept)}{more}."


def _treatments(training: ImageStore, parts: dict[str, dict[str, Any]]) -> Iterator[Message]:
    """Yield how many images are transparent, lost their colour, or were clipped."""
    treated = Counter[str]()
    for part in parts.values():
        treated.update(part.get("originals", {}).get("treatments", {}))
    images = training.made_by.parameters.get("images", {})
    count = f"{sum(part['images'] for part in parts.values()):,}"
    if number := treated[TRANSPARENT]:
        background = f"show images.background {'/'.join(map(str, images.get('background', ())))}"
        result = "are kept" if training.image_shape[0] == 4 else background
        yield logging.INFO, f"Transparent parts of {number:,} images {result}."
    if (number := treated[COLOUR]) and images.get("channels") is None:
        yield logging.INFO, f"{number:,} of {count} images were in colour and became grey."
    if number := treated[CLIPPED]:
        bits = parts["training"].get("value_bits") or 16
        largest = f"{2**bits - 1:,}"
        yield (
            logging.WARNING,
            f"{number:,} of {count} images have values above {largest}, which became {largest}; a larger "
            f"images.value_bits than {bits} keeps them.",
        )


def _missing_classes(store: ImageStore) -> list[str]:
    if store.labels is None:
        return []
    return [store.class_names[label] for label in np.setdiff1d(np.arange(len(store.class_names)), store.labels)]


def _describe(store: ImageStore) -> dict[str, Any]:
    channels, height, width = store.image_shape
    counts = {} if store.labels is None else dict(zip(*np.unique(store.labels, return_counts=True), strict=True))
    return {
        "images": len(store),
        "height": height,
        "width": width,
        "channels": channels,
        "images_per_class": {store.class_names[label]: int(count) for label, count in counts.items()},
        "fingerprint": store.made_by.fingerprint,
        **store.statistics,
    }
