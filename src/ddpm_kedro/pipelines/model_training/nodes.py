"""Augment images, plan and train a run, export the model."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

from PIL import Image

from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import DiffusersModel, RunRecord, TrainedModel, to_diffusers, unsupported_reason
from ddpm_kedro.nothing import NOTHING, Nothing
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.progress import RowLog, passes
from ddpm_kedro.provenance import differences
from ddpm_kedro.reporting.grid import labelled_grid
from ddpm_kedro.training.loop import Report, train
from ddpm_kedro.training.randomness import augmentation_generator, batch_indices
from ddpm_kedro.training.resume_plan import ResumePlan
from ddpm_kedro.training.run import Checkpoint, Row, Run

logger = logging.getLogger(__name__)
PREVIEW = 100  # images of the augmentation preview, at most
TrainingOutputs = tuple[dict[str, Image.Image], list[Row], Checkpoint | Nothing, Checkpoint | Nothing]


def augment_images(
    training_images: ImageStore, augmentation: AugmentationParameters, training: TrainingParameters
) -> tuple[AugmentedImages, Image.Image]:
    """Augment the training images as the parameters say; also return a grid of the first batch that the model sees."""
    images = AugmentedImages(training_images, augmentation)
    indices = batch_indices(training.seed, 0, training.batch_size, len(images))
    batch = to_uint8(images.batch(indices, augmentation_generator(training.seed, 0)))[:PREVIEW]
    return images, labelled_grid(batch.numpy())


def make_resume_plan(
    augmented_images: AugmentedImages,
    resume_checkpoint: Checkpoint | None,
    model: ModelParameters,
    diffusion: DiffusionParameters,
    optimizer: OptimizerParameters,
    training: TrainingParameters,
    initial_model: TrainedModel | None = None,
) -> ResumePlan:
    """Decide which run is trained, and whether it resumes from the latest checkpoint or starts from scratch."""
    run = Run.of(augmented_images, model, diffusion, optimizer, training, initial_model)
    plan = ResumePlan.of(run, resume_checkpoint)
    _log_plan(plan)
    if plan.checkpoint is None and initial_model is not None:
        _log_initial_model(initial_model, run)
    return plan


def train_model(
    augmented_images: AugmentedImages, holdout_images: ImageStore, resume_plan: ResumePlan, stop_request: Event
) -> Iterator[TrainingOutputs]:
    """Train a run, and yield its outputs at every report interval.

    Yields:
        Preview grids by name, all rows of the history, the checkpoint if it is the best so far, else NOTHING, and the
        checkpoint if one is due, else NOTHING.
    """
    run, checkpoint = resume_plan.run, resume_plan.checkpoint
    if checkpoint is not None and resume_plan.finished:
        renamed = NOTHING if resume_plan.other is None else replace(checkpoint, record=run.record)
        yield {}, checkpoint.history, NOTHING, renamed
        return
    hardware = choose_hardware(run.training.device, run.training.precision)
    length = f"{run.num_images:,} images, {passes(run.num_images, len(augmented_images))}"
    logger.info("Run %s trains on %s, %s: %s", run.run_id, hardware.device.type, hardware.precision, length)
    logger.debug("Training on %s; previews with guidance %g", hardware.reason, run.preview_guidance_scale)
    _log_flips(run.augmentation)
    if run.training.compile != "none":
        logger.info("torch.compile, mode %s: the first steps take minutes.", run.training.compile)
    rows = RowLog(logger, run.num_images)
    for report in train(run, augmented_images, holdout_images, hardware, checkpoint, stop_request.is_set):
        if report.history and report.history[-1]["images_seen"] == report.images_seen:
            rows.add(report.history[-1])
        latest = report.checkpoint or NOTHING
        yield _preview_grids(report, run), report.history, latest if report.best else NOTHING, latest


def export_model(
    checkpoint: Checkpoint, best_checkpoint: Checkpoint | None, training: TrainingParameters
) -> TrainedModel:
    """Return the model with the EMA weights of the last or the best checkpoint."""
    if training.export == "best":
        checkpoint = _choose_best(checkpoint, best_checkpoint)
    seen, where = checkpoint.images_seen, checkpoint.trained_on
    config = checkpoint.record.as_dict() | {"images_seen": seen, "trained_on": where}
    try:
        return TrainedModel.from_config(config, checkpoint.ema)
    except UserError as error:
        raise UserError(
            f"The checkpoint of run {checkpoint.run_id} cannot be exported: {error}. Train it again "
            "(training.resume=never), with a lower optimizer.lr if weights are not finite."
        ) from error


def export_to_diffusers(model: TrainedModel) -> DiffusersModel | Nothing:
    """Return the model in diffusers' format; NOTHING, with a log line, if diffusers has no equivalent network."""
    if reason := unsupported_reason(model):
        logger.info("Not exported to diffusers: %s.", reason)
        return NOTHING
    return to_diffusers(model)


def _log_plan(plan: ResumePlan) -> None:
    run, checkpoint = plan.run, plan.checkpoint
    changed = "; ".join(plan.changed)
    if checkpoint is None:
        if plan.other:
            differs = "Run %s starts from scratch, because it differs from run %s: %s."
            logger.info(differs, run.run_id, plan.other, changed)
        return
    seen = f"{checkpoint.images_seen:,}"
    if plan.finished:
        logger.info("Run %s is already trained: %s images seen.", run.run_id, seen)
    elif plan.other is None:
        logger.info("Run %s resumes after %s images.", run.run_id, seen)
    else:
        logger.info("Run %s continues run %s after %s images; changed: %s.", run.run_id, plan.other, seen, changed)
        if run.continued_from is not None:
            logger.warning("Training these parameters from scratch would lead to another model.")


def _log_flips(augmentation: AugmentationParameters) -> None:
    flips = [name for name in ("horizontal_flip", "vertical_flip") if getattr(augmentation, name)]
    if flips:
        logger.info(
            "Half of the training images are mirrored (%s), so that samples show mirror images, too: of text, clock "
            "faces, hearts, … To turn this off: --params use.augmentation=none",
            ", ".join(f"augmentation.{name}" for name in flips),
        )


def _log_initial_model(initial_model: TrainedModel, run: Run) -> None:
    """Log which weights a run starts from; warn if their diffusion parameters are others."""
    logger.info("Initial weights: %s, of run %s.", run.initial_model, initial_model.run_id)
    if changed := differences(
        {"diffusion": initial_model.diffusion.fingerprint_fields()}, {"diffusion": run.diffusion.fingerprint_fields()}
    ):
        logger.warning("The initial model was trained with other diffusion parameters: %s", "; ".join(changed))


def _choose_best(checkpoint: Checkpoint, best: Checkpoint | None) -> Checkpoint:
    """Return the best checkpoint, if it is of the same training."""
    if best is None or not _same_training(best.record, checkpoint.record):
        raise UserError(
            "training.export = best, but the best checkpoint on disk is of another run. Train this one again "
            "(training.resume=never), or export its last checkpoint: training.export=last."
        )
    logger.info(
        "Exporting the best checkpoint: %s images, validation loss %.4f.",
        f"{best.images_seen:,}",
        best.best_validation_loss,
    )
    return best


def _same_training(one: RunRecord, other: RunRecord) -> bool:
    images = [record.made_by.inputs["training_images"] for record in (one, other)]
    return one.tracking_id == other.tracking_id and images[0] == images[1]


def _preview_grids(report: Report, run: Run) -> dict[str, Image.Image]:
    """Return one grid, whose name is unique among all runs, or none."""
    if report.preview is None:
        return {}
    labels = None if report.preview_labels is None else report.preview_labels.numpy()
    grid = labelled_grid(report.preview.numpy(), labels, run.class_names)
    return {f"{run.run_id}/images_seen_{report.images_seen:010d}": grid}
