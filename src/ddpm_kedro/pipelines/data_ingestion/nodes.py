"""Bring the images here, divide them, and say what there is."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shards, split_source
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.source import Manifest, locate
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters
from ddpm_kedro.provenance import Provenance, fingerprint, redact, set_name
from ddpm_kedro.reporting.fonts import legend
from ddpm_kedro.reporting.grid import labelled_grid

logger = logging.getLogger(__name__)
TOLD = ("width", "channel_multipliers", "attention_levels", "patch_size", "class_conditional")
SIZES = 20  # of the source, in the report, the most frequent
SHOWN = 100  # training images in the contact sheet, at most
REASONS = 3  # of rejected files, told; the report has all


def download_images(dataset: DatasetParameters, earlier_images: Manifest | None = None) -> Manifest:
    """Bring the files of a source to this machine. The one node with files and network as its purpose.

    Args:
        dataset: which images.
        earlier_images: the manifest that an earlier run left. Where it asked for the same and the source cannot be
            reached any more, it is taken: nobody needs the source while the images made of it are there.

    Returns:
        A manifest: source, folder, SHA-256 of every file, class names; of one's own pictures also where they lie, a
        fingerprint of what was asked for, and what they look like.

    Raises:
        UserError: for an unknown source, or one that cannot be downloaded.
    """
    asked = {"source": dataset.source}
    if dataset.path is not None:
        wanted = dataset.model_dump(exclude={"download_folder"})
        asked["asked"] = fingerprint(wanted | {"path": locate(dataset, missing_ok=True)})
    try:
        manifest = asked | find_source(dataset.source).fetch(dataset)
    except MissingSourceError as error:
        if earlier_images is None or any(earlier_images.get(name) != asked.get(name) for name in ("source", "asked")):
            raise
        logger.warning("%s The images that were made of it before are used.", error)
        return earlier_images
    return manifest if dataset.path is None else manifest | {"path": locate(dataset)}


def prepare_images(raw_images: Manifest, images: ImagesParameters) -> tuple[LazyImageStore, LazyImageStore]:
    """Divide the images into training and a hold-out that training never sees.

    Returns:
        Training images and hold-out, decoded only when they are saved and not there yet.
    """
    parameters = {"dataset": {"source": raw_images["source"]}, "images": images.fingerprint_fields()}
    source = find_source(raw_images["source"])

    def lazy(name: str, shards: Shards, most_rejected: float) -> LazyImageStore:
        class_names = tuple(raw_images["class_names"])
        files = fingerprint(raw_images["sha256"], name, class_names, *raw_images.get("parts", ()))
        made_by = Provenance(parameters, {"raw_images": files})
        check = partial(source.check, raw_images)
        return LazyImageStore(made_by, class_names, shards, images.workers, most_rejected, check)

    training, holdout = split_source(source, raw_images, images)
    # What is held out is decided by chance: the training images, most of all, stand for the share of rejected files.
    return lazy("training", training, images.max_rejected_fraction), lazy("holdout", holdout, 1.0)


def report_ingestion(
    training_images: ImageStore, holdout_images: ImageStore, raw_images: Manifest
) -> tuple[dict[str, Any], Image.Image]:
    """What there was and what came of it, as plain data, and a picture of some training images.

    Of both parts counts, sizes, classes, statistics, and the files that gave no image; of the source how many files,
    and the sizes and kinds of some of them.
    """
    labels = training_images.labels
    if labels is None:
        shown = np.linspace(0, len(training_images) - 1, min(SHOWN, len(training_images))).astype(int)
    else:
        each = max(1, SHOWN // len(training_images.class_names))
        shown = np.concatenate([np.flatnonzero(labels == label)[:each] for label in np.unique(labels)])
    sheet = labelled_grid(
        training_images.images[shown], None if labels is None else labels[shown], training_images.class_names
    )
    parts = {"training": _describe(training_images), "holdout": _describe(holdout_images)}
    if training_images.hashes is not None and holdout_images.hashes is not None:
        both = int(np.isin(holdout_images.hashes, training_images.hashes).sum())
        parts["holdout"]["also_in_training"] = both
        if both:
            logger.warning("%s of %s pictures of the hold-out are in training, too.", both, len(holdout_images))
    _tell_rejected(parts.values())
    _log_missing_classes(training_images, holdout_images)
    if numbers := legend(training_images.class_names):
        logger.info("No font here has all letters of these classes; grids show their numbers: %s.", numbers)
    return parts | {"raw": _describe_raw(raw_images)}, sheet


def choose_parameters(
    training_images: ImageStore,
    raw_images: Manifest,
    dataset: DatasetParameters,
    images: ImagesParameters,
    trained_parameters: dict[str, Any],
) -> dict[str, Any]:
    """Return the parameters that a plain ``kedro run`` takes for pictures of one's own.

    Args:
        training_images: the pictures.
        raw_images: their manifest.
        dataset: which they are.
        images: what they have become.
        trained_parameters: of the training that this run goes on with, or of one before it with these parameters. Where
            they are empty, what suits the pictures is chosen.

    Returns:
        Parameters by group; empty for a set that others made, whose parameters stand in ``conf/``.
    """
    if dataset.path is None or trained_parameters:
        return trained_parameters
    channels, *_ = training_images.image_shape
    model = suitable_model(training_images.image_shape, classes=bool(training_images.class_names))
    chosen = {
        "use": {
            "dataset": set_name(raw_images["path"]),
            "model": "chosen",
            "augmentation": "flips" if channels > 1 else "none",
        },
        "dataset": redact(dataset.model_dump() | {"path": raw_images["path"]}),
        "images": images.model_dump(exclude={"workers"}),
        "model": model,
    }
    values = ", ".join(f"model.{name} {model[name]}" for name in TOLD)
    logger.info(
        "Chosen for these pictures: use.augmentation %s, %s. kedro run trains with that; --params overrides it.",
        chosen["use"]["augmentation"],
        values,
    )
    return chosen


def suitable_model(image_shape: tuple[int, int, int], *, classes: bool) -> dict[str, Any]:
    """A U-Net for pictures (C, H, W): the larger they are, the wider, and the more resolutions.

    Its first and last layer take patches of 2×2, so that it learns in reasonable time without a GPU, too.
    """
    channels, *sides = image_shape
    side = max(sides)
    levels = next((count for largest, count in ((32, 2), (64, 3)) if side <= largest), 4)
    width = {2: 16, 3: 24, 4: 32}[levels] * (1 if channels == 1 else 2)
    return {
        "width": width,
        "channel_multipliers": [1, 2, 3, 4][:levels] if levels > 2 else [2, 3],
        "blocks_per_level": 1,
        "attention_levels": [levels - 1] if channels > 1 else [],
        "head_channels": None,
        "norm_groups": 8,
        "norm_eps": 1e-5,
        "dropout": 0.0,
        "patch_size": 2,
        "class_conditional": classes,
    }


def _tell_rejected(parts: Iterable[dict[str, Any]]) -> None:
    rejected = sum((Counter(part.get("rejected", {})) for part in parts), Counter[str]())
    if rejected:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in rejected.most_common(REASONS))
        more = ", and more" if len(rejected) > REASONS else ""
        logger.warning(
            "%s files gave no picture: %s%s. ingestion_report.json lists them.", f"{rejected.total():,}", reasons, more
        )


def _log_missing_classes(training_images: ImageStore, holdout_images: ImageStore) -> None:
    """Name the classes that have no image in one of the parts."""
    for store, level, part, result in (
        (training_images, logging.WARNING, "training", "the model cannot learn them"),
        (holdout_images, logging.INFO, "hold-out", "they are too small for one"),
    ):
        if store.labels is None:
            continue
        missing = [store.class_names[label] for label in np.setdiff1d(np.arange(len(store.class_names)), store.labels)]
        if missing:
            some = ", ".join(missing[:SIZES]) + (", …" if len(missing) > SIZES else "")
            logger.log(level, "%d classes have no %s image, for %s: %s.", len(missing), part, result, some)


def _describe_raw(raw_images: Manifest) -> dict[str, Any]:
    known = {name: raw_images[name] for name in ("source", "files", "others") if name in raw_images}
    sizes = {
        f"height {height}, width {width}, {'grey' if channels == 1 else 'colour'}": count
        for height, width, channels, count in raw_images.get("looks", [])[:SIZES]
    }
    return known | ({"sizes_of_some": sizes} if sizes else {})


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
