"""Augment images, train the network, export the model."""

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
from ddpm_kedro.progress import summary
from ddpm_kedro.provenance import differences
from ddpm_kedro.reporting.grid import labelled_grid
from ddpm_kedro.training.loop import Report, train
from ddpm_kedro.training.randomness import augmentation_generator, batch_indices
from ddpm_kedro.training.resume_plan import ResumePlan
from ddpm_kedro.training.run import Checkpoint, Row, Run

logger = logging.getLogger(__name__)
PREVIEW = 100  # images of the preview, at most
TrainingOutputs = tuple[dict[str, Image.Image], list[Row], Checkpoint | Nothing, Checkpoint | Nothing]


def augment_images(
    training_images: ImageStore, augmentation: AugmentationParameters, training: TrainingParameters
) -> tuple[AugmentedImages, Image.Image]:
    """Training images that are augmented when asked for, and a picture of the first batch the model will see."""
    images = AugmentedImages(training_images, augmentation)
    indices = batch_indices(training.seed, 0, training.batch_size, len(images))
    batch = to_uint8(images.batch(indices, augmentation_generator(training.seed, 0)))[:PREVIEW]
    return images, labelled_grid(batch.numpy())


def train_model(
    augmented_images: AugmentedImages,
    holdout_images: ImageStore,
    resume_checkpoint: Checkpoint | None,
    stop_request: Event,
    model: ModelParameters,
    diffusion: DiffusionParameters,
    optimizer: OptimizerParameters,
    training: TrainingParameters,
    initial_model: TrainedModel | None = None,
) -> Iterator[TrainingOutputs]:
    """Train, yielding at every report interval what there is to keep.

    Goes on from ``resume_checkpoint`` where ``training.resume`` allows it: see :class:`ResumePlan`.

    Yields:
        Preview figures by name, all rows of the history, the checkpoint if it is the best so far, else NOTHING, and
        the checkpoint if one is due, else NOTHING.
    """
    asked = Run.of(augmented_images, model, diffusion, optimizer, training, initial_model)
    start = ResumePlan.of(asked, resume_checkpoint)
    run, resume = start.run, start.checkpoint
    _tell(start)
    if resume is not None and start.finished:
        yield {}, resume.history, NOTHING, _under(run, resume) if start.other else NOTHING
        return
    if resume is None and initial_model is not None:
        _tell_start(initial_model, run)
    hardware = choose_hardware(training.device, training.precision)
    logger.info("Training on %s", hardware.reason)
    if training.compile != "none":
        logger.info("torch.compile, mode %s: the first steps take minutes.", training.compile)
    for report in train(run, augmented_images, holdout_images, hardware, resume, stop_request.is_set):
        if report.history and report.history[-1]["images_seen"] == report.images_seen:
            logger.info(summary(report.history[-1], run.num_images))
        checkpoint = report.checkpoint or NOTHING
        yield _previews(report, run), report.history, checkpoint if report.best else NOTHING, checkpoint


def export_model(
    checkpoint: Checkpoint, best_checkpoint: Checkpoint | None, training: TrainingParameters
) -> TrainedModel:
    """The averaged weights of the last or the best checkpoint, with the configuration that rebuilds the network."""
    if training.export == "best":
        checkpoint = _best(checkpoint, best_checkpoint)
    config = checkpoint.record.as_dict() | {"images_seen": checkpoint.images_seen}
    try:
        return TrainedModel.from_config(config, checkpoint.ema)
    except UserError as error:
        raise UserError(
            f"The checkpoint of run {checkpoint.run_id} gives no model: {error}. Train it again "
            "(training.resume=never), with a lower optimizer.lr where weights are not finite."
        ) from error


def export_to_diffusers(model: TrainedModel) -> DiffusersModel | Nothing:
    """Return the model in diffusers' format; NOTHING, with a log line, if diffusers has no equivalent network."""
    if reason := unsupported_reason(model):
        logger.info("Not exported to diffusers: %s.", reason)
        return NOTHING
    return to_diffusers(model)


def _tell_start(initial_model: TrainedModel, run: Run) -> None:
    """What the weights were trained with, where that is something else."""
    logger.info("Starts from the weights %s of run %s.", run.initial_model, initial_model.run_id)
    if changed := differences(
        {"diffusion": initial_model.diffusion.fingerprint_fields()}, {"diffusion": run.diffusion.fingerprint_fields()}
    ):
        logger.warning("The initial model was trained with another diffusion: %s", "; ".join(changed))


def _tell(start: ResumePlan) -> None:
    """How the run begins."""
    run, checkpoint = start.run, start.checkpoint
    changed = "; ".join(start.changed)
    if checkpoint is None:
        why = f" anew, since these differ from run {start.other}: {changed}" if start.other else ""
        logger.info("Run %s starts%s.", run.run_id, why)
        return
    seen = f"{checkpoint.images_seen:,}"
    if start.finished:
        logger.info("Run %s is already trained: %s images seen.", run.run_id, seen)
    elif start.other is None:
        logger.info("Run %s goes on after %s images.", run.run_id, seen)
    else:
        logger.info("Run %s goes on from run %s after %s images; changed: %s.", run.run_id, start.other, seen, changed)
        if run.continued_from is not None:
            logger.warning("Trained from the beginning, these parameters would lead to another model.")


def _under(run: Run, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint of a run that asks for no more than was trained already, under its own name."""
    return replace(checkpoint, record=run.record)


def _best(checkpoint: Checkpoint, best: Checkpoint | None) -> Checkpoint:
    """The best checkpoint, if it is of the same training."""
    if best is None or not _same_training(best.record, checkpoint.record):
        raise UserError(
            "training.export = best, but the best checkpoint on disk is of another run. Train this one again "
            "(training.resume=never), or export its last checkpoint: training.export=last."
        )
    logger.info(
        "The best of the checkpoints is exported: %s images, validation loss %.4f.",
        f"{best.images_seen:,}",
        best.best_validation_loss,
    )
    return best


def _same_training(one: RunRecord, other: RunRecord) -> bool:
    images = [record.made_by.inputs["training_images"] for record in (one, other)]
    return one.tracking_id == other.tracking_id and images[0] == images[1]


def _previews(report: Report, run: Run) -> dict[str, Image.Image]:
    """One picture, its name unique among all runs."""
    if report.preview is None:
        return {}
    labels = None if report.preview_labels is None else report.preview_labels.numpy()
    grid = labelled_grid(report.preview.numpy(), labels, run.class_names)
    return {f"{run.run_id}/images_seen_{report.images_seen:010d}": grid}
