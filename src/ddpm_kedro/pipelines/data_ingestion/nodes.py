"""Download, split and report images, and choose parameters for them."""

import logging
from functools import partial
from typing import Any

from PIL import Image

from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shards, split_source
from ddpm_kedro.ingestion.probing import format_parts
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.report import choose_shown, describe_parts, describe_source, messages
from ddpm_kedro.ingestion.source import Manifest, locate
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters
from ddpm_kedro.provenance import Provenance, fingerprint, redact, set_name
from ddpm_kedro.reporting.fonts import legend
from ddpm_kedro.reporting.grid import labelled_grid

logger = logging.getLogger(__name__)
LOGGED = ("width", "channel_multipliers", "attention_levels", "patch_size", "class_conditional")


def download_images(dataset: DatasetParameters, earlier_images: Manifest | None = None) -> Manifest:
    """Download the files of a source, or find them on this machine: the one node that uses files and the network.

    If the source is not reachable, the manifest of an earlier run is returned, if it is of the same source: the source
    is not needed as long as the images made from it exist.

    Returns:
        A manifest: source, folder, SHA-256 of each file, class names; for your own images also their location, a
        fingerprint of the request, and the sizes of some images.

    Raises:
        UserError: if the source is unknown or cannot be downloaded.
    """
    request = {"source": dataset.source}
    if dataset.path is not None:
        parameters = dataset.model_dump(exclude={"download_folder"})
        request["asked"] = fingerprint(parameters | {"path": locate(dataset, missing_ok=True)})
    try:
        manifest = request | find_source(dataset.source).fetch(dataset)
    except MissingSourceError as error:
        if earlier_images is None or any(earlier_images.get(name) != request.get(name) for name in ("source", "asked")):
            raise
        logger.warning("%s The images made from it earlier are used.", error)
        return earlier_images
    return manifest if dataset.path is None else manifest | {"path": locate(dataset)}


def prepare_images(raw_images: Manifest, images: ImagesParameters) -> tuple[LazyImageStore, LazyImageStore]:
    """Return training images, and holdout images, which training never sees; stored ones are not decoded again."""
    parameters = {"dataset": {"source": raw_images["source"]}, "images": images.fingerprint_fields()}
    source = find_source(raw_images["source"])
    looks, pixels = raw_images.get("looks"), raw_images.get("pixels")
    conversion = format_parts(looks, images, pixels) if looks else []

    def lazy(name: str, shards: Shards, max_rejected: float) -> LazyImageStore:
        class_names = tuple(raw_images["class_names"])
        files = fingerprint(raw_images["sha256"], name, class_names, *raw_images.get("parts", ()), *conversion)
        made_by = Provenance(parameters, {"raw_images": files})
        check = partial(source.check, raw_images)
        return LazyImageStore(made_by, class_names, shards, images.workers, max_rejected, check)

    training, holdout = split_source(source, raw_images, images)
    # Only the training images are checked: the few holdout images may have a larger fraction of bad files by chance.
    return lazy("training", training, images.max_rejected_fraction), lazy("holdout", holdout, 1.0)


def report_ingestion(
    training_images: ImageStore, holdout_images: ImageStore, raw_images: Manifest
) -> tuple[dict[str, Any], Image.Image]:
    """Return a figure of random training images, and the report as plain data: on both parts, and on the source."""
    seed = training_images.made_by.parameters.get("images", {}).get("seed", 0)
    labels, class_names = training_images.labels, training_images.class_names
    shown = choose_shown(labels, len(training_images), seed)
    sheet = labelled_grid(training_images.images[shown], None if labels is None else labels[shown], class_names)
    parts = describe_parts(training_images, holdout_images)
    for level, message in messages(training_images, holdout_images, parts):
        logger.log(level, "%s", message)
    if numbers := legend(class_names):
        logger.info("No installed font has all letters of these class names; grids show their numbers: %s.", numbers)
    return parts | {"raw": describe_source(raw_images)}, sheet


def choose_parameters(
    training_images: ImageStore,
    raw_images: Manifest,
    dataset: DatasetParameters,
    images: ImagesParameters,
    trained_parameters: dict[str, Any],
) -> dict[str, Any]:
    """Return the parameters that a plain ``kedro run`` uses for your own images.

    The parameters of the training that this run resumes, or of an earlier one with the same parameters, are returned
    as they are; if they are empty, parameters that suit the images are chosen.

    Returns:
        Parameters by group; empty for a well-known dataset, whose parameters are in ``conf/``.
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
    values = [f"use.augmentation {chosen['use']['augmentation']}", *(f"model.{name} {model[name]}" for name in LOGGED)]
    message = "Chosen for these images: %s. kedro run trains with these parameters; --params overrides them."
    logger.info(message, ", ".join(values))
    return chosen


def suitable_model(image_shape: tuple[int, int, int], *, classes: bool) -> dict[str, Any]:
    """Return a U-Net for images (C, H, W): larger images get more channels and more resolutions.

    Its first and last layers use patches of 2×2, so that it learns in reasonable time also without a GPU.
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
