"""Download, split and report images, and plan a training on them."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ddpm_kedro.datasets.chosen_parameters import images_of
from ddpm_kedro.datasets.device_profile import LazyDeviceProfile
from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shards, split_source
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.source import Manifest, locate
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters, PlanParameters, check_parameters
from ddpm_kedro.planning.request import PlanRequest
from ddpm_kedro.planning.reuse import why_new_plan
from ddpm_kedro.provenance import Provenance, fingerprint, redact, set_name
from ddpm_kedro.reporting.fonts import legend
from ddpm_kedro.reporting.grid import labelled_grid

if TYPE_CHECKING:
    from ddpm_kedro.planning.plan import Plan
    from ddpm_kedro.planning.profile import DeviceProfile

logger = logging.getLogger(__name__)
MAX_SIZES = 20  # most frequent sizes of the source's images in the report
MAX_SHEET = 100  # training images in the contact sheet
MAX_REASONS = 3  # reasons for rejected files in a warning; the report has all reasons
MAX_CLASSES = 20  # classes in a message


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

    def lazy(name: str, shards: Shards, max_rejected: float) -> LazyImageStore:
        class_names = tuple(raw_images["class_names"])
        files = fingerprint(raw_images["sha256"], name, class_names, *raw_images.get("parts", ()))
        made_by = Provenance(parameters, {"raw_images": files})
        check = partial(source.check, raw_images)
        return LazyImageStore(made_by, class_names, shards, images.workers, max_rejected, check)

    training, holdout = split_source(source, raw_images, images)
    # Only the training images are checked: the few holdout images may have a larger fraction of bad files by chance.
    return lazy("training", training, images.max_rejected_fraction), lazy("holdout", holdout, 1.0)


def report_ingestion(
    training_images: ImageStore, holdout_images: ImageStore, raw_images: Manifest
) -> tuple[dict[str, Any], Image.Image]:
    """Return a figure of some training images, and the report as plain data: on both parts, and on the source."""
    labels = training_images.labels
    if labels is None:
        shown = np.linspace(0, len(training_images) - 1, min(MAX_SHEET, len(training_images))).astype(int)
    else:
        each = max(1, MAX_SHEET // len(training_images.class_names))
        shown = np.concatenate([np.flatnonzero(labels == label)[:each] for label in np.unique(labels)])
    sheet = labelled_grid(
        training_images.images[shown], None if labels is None else labels[shown], training_images.class_names
    )
    parts = {"training": _describe(training_images), "holdout": _describe(holdout_images)}
    if training_images.hashes is not None and holdout_images.hashes is not None:
        both = int(np.isin(holdout_images.hashes, training_images.hashes).sum())
        parts["holdout"]["also_in_training"] = both
        if both:
            logger.warning("%s of %s holdout images are training images, too.", both, len(holdout_images))
    _warn_rejected(parts.values())
    _log_missing_classes(training_images, holdout_images)
    if numbers := legend(training_images.class_names):
        logger.info("No installed font has all letters of these class names; grids show their numbers: %s.", numbers)
    return parts | {"raw": _describe_raw(raw_images)}, sheet


def plan_training(
    training_images: ImageStore,
    raw_images: Manifest,
    device_profile: LazyDeviceProfile,
    dataset: DatasetParameters,
    images: ImagesParameters,
    plan: PlanParameters,
    plan_request: PlanRequest,
) -> dict[str, Any]:
    """Plan the training on your own images: the parameters that a plain ``kedro run`` uses.

    A stored plan is returned as it is, unless it is for other images, another time budget, or another device on which
    no training has begun.

    Returns:
        ``parameters`` by group, and the ``plan``: its table, and what it was made for. Both are empty for a well-known
        dataset, whose parameters are in ``conf/``.

    Raises:
        UserError: if the time is too short, or the images are too large for the device.
    """
    if dataset.path is None:
        return {"parameters": {}, "plan": None}
    stored, images_id = plan_request.stored, training_images.made_by.fingerprint
    own = {
        "dataset": redact(dataset.model_dump() | {"path": raw_images["path"]}),
        "images": images.model_dump(mode="json", exclude={"workers"}),
        "plan": plan.model_dump(exclude=plan.excluded_from_fingerprint()),
    }
    reason = why_new_plan(stored, _is_for(stored, own, images_id), plan, device_profile.kind)
    if reason is None or (stored.get("parameters") and not plan_request.may_plan):
        return dict(stored)
    logger.info("Planning the training: %s.", reason)
    made = _make_plan(training_images, raw_images, device_profile(), plan_request)
    augmentation = made.parameters["augmentation"]
    option = "flips" if augmentation["horizontal_flip"] else "none"
    use = {
        "dataset": set_name(raw_images["path"]),
        "model": "chosen",
        "augmentation": "non_leaking" if augmentation.get("non_leaking") else option,
    }
    about = {"images": images_id, "device": device_profile.kind, "in_use": False, "table": made.table}
    return {"parameters": {"use": use} | own | made.parameters, "plan": about}


def _is_for(stored: Mapping[str, Any], own: Mapping[str, Any], images_id: str) -> bool:
    """Return whether stored parameters are for these images; those of an earlier version have no fingerprint."""
    if not stored or not stored["parameters"]:
        return False
    if stored["plan"] is None:
        return bool(images_of(stored["parameters"]) == images_of(own))
    return bool(stored["plan"]["images"] == images_id)


def _make_plan(
    training_images: ImageStore, raw_images: Manifest, profile: "DeviceProfile", request: PlanRequest
) -> "Plan":
    from ddpm_kedro.planning.plan import make_plan, other_sizes  # noqa: PLC0415  torch takes seconds
    from ddpm_kedro.planning.sizing import Task  # noqa: PLC0415

    parameters = check_parameters(request.parameters)
    shape, seconds = training_images.image_shape, parameters.plan.seconds
    facts = (shape, len(training_images), len(training_images.class_names))
    is_open = parameters.images.size is None
    sizes = other_sizes(raw_images.get("looks", ()), shape) if is_open else ()
    return make_plan(Task(*facts, profile, seconds, parameters, request.given), sizes=sizes)


def _warn_rejected(parts: Iterable[dict[str, Any]]) -> None:
    rejected = sum((Counter(part.get("rejected", {})) for part in parts), Counter[str]())
    if rejected:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in rejected.most_common(MAX_REASONS))
        more = ", and more" if len(rejected) > MAX_REASONS else ""
        logger.warning(
            "%s files gave no image: %s%s. ingestion_report.json lists them.", f"{rejected.total():,}", reasons, more
        )


def _log_missing_classes(training_images: ImageStore, holdout_images: ImageStore) -> None:
    """Log the classes that have no training or no holdout image."""
    for store, level, part, result in (
        (training_images, logging.WARNING, "training", "the model cannot learn them"),
        (holdout_images, logging.INFO, "holdout", "they have too few images"),
    ):
        if store.labels is None:
            continue
        missing = [store.class_names[label] for label in np.setdiff1d(np.arange(len(store.class_names)), store.labels)]
        if missing:
            names = ", ".join(missing[:MAX_CLASSES]) + (", …" if len(missing) > MAX_CLASSES else "")
            logger.log(level, "%d classes have no %s image; %s: %s.", len(missing), part, result, names)


def _describe_raw(raw_images: Manifest) -> dict[str, Any]:
    known = {name: raw_images[name] for name in ("source", "files", "others") if name in raw_images}
    sizes = {
        f"height {height}, width {width}, {'grey' if channels == 1 else 'colour'}": count
        for height, width, channels, count in raw_images.get("looks", [])[:MAX_SIZES]
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
