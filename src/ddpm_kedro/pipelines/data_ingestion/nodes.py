"""Bring the images here, divide them, and say what there is."""

from typing import Any

import numpy as np
from PIL import Image

from ddpm_kedro.images.grid import labelled_grid
from ddpm_kedro.images.sources import Manifest, Shards, source_named
from ddpm_kedro.images.store import ImageStore, LazyImageStore
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters
from ddpm_kedro.provenance import Provenance, fingerprint

SHOWN = 100  # training images in the contact sheet, at most


def download_images(dataset: DatasetParameters) -> Manifest:
    """Bring the files of a source to this machine. The one node with files and network as its purpose.

    Returns:
        A manifest: source, folder, SHA-256 of every file, class names; of one's own pictures also what they look like.

    Raises:
        UserError: for an unknown source, or one that cannot be downloaded.
    """
    return {"source": dataset.source} | source_named(dataset.source).fetch(dataset)


def prepare_images(raw_images: Manifest, images: ImagesParameters) -> tuple[LazyImageStore, LazyImageStore]:
    """Divide the images into training and a hold-out that training never sees.

    Returns:
        Training images and hold-out, decoded only when they are saved and not there yet.
    """
    parameters = {"dataset": {"source": raw_images["source"]}, "images": images.shaping()}

    def lazy(name: str, shards: Shards, most_rejected: float) -> LazyImageStore:
        made_by = Provenance(parameters, {"raw_images": fingerprint(raw_images["sha256"], name)})
        class_names = tuple(raw_images["class_names"])
        return LazyImageStore(made_by, class_names, shards, images.workers, most_rejected)

    training, holdout = source_named(raw_images["source"]).divided(raw_images, images)
    # What is held out is decided by chance: the training images, most of all, stand for the share of rejected files.
    return lazy("training", training, images.max_rejected_fraction), lazy("holdout", holdout, 1.0)


def report_ingestion(training_images: ImageStore, holdout_images: ImageStore) -> tuple[dict[str, Any], Image.Image]:
    """Counts, sizes, classes and mean brightness of both parts as plain data, and a picture of some training images."""
    labels = training_images.labels
    if labels is None:
        shown = np.linspace(0, len(training_images) - 1, min(SHOWN, len(training_images))).astype(int)
    else:
        each = max(1, SHOWN // len(training_images.class_names))
        shown = np.concatenate([np.flatnonzero(labels == label)[:each] for label in np.unique(labels)])
    sheet = labelled_grid(
        training_images.images[shown], None if labels is None else labels[shown], training_images.class_names
    )
    return {"training": _describe(training_images), "holdout": _describe(holdout_images)}, sheet


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
        **store.facts,
    }
