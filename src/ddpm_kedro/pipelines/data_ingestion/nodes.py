"""Download, split and report images, and plan a training on them."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from PIL import Image

from ddpm_kedro.datasets.chosen_parameters import images_of
from ddpm_kedro.datasets.device_profile import LazyDeviceProfile
from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.lazy_store import LazyImageStore, Shards, split_source
from ddpm_kedro.ingestion.probing import format_parts
from ddpm_kedro.ingestion.registry import find_source
from ddpm_kedro.ingestion.report import choose_shown, describe_parts, describe_source, messages
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
    use = {"dataset": set_name(raw_images["path"])} | made.use
    about = {"images": images_id, "device": device_profile.kind, "in_use": False, "table": made.table}
    return {"parameters": {"use": use} | own | made.parameters, "plan": about}


def _is_for(stored: Mapping[str, Any], own: Mapping[str, Any], images_id: str) -> bool:
    """Return whether stored parameters are for these images; parameters of an earlier version have no fingerprint."""
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
