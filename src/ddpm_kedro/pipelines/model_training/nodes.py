"""Augment images, train the network, export the model."""

import logging
from collections.abc import Iterator
from threading import Event
from typing import Any

from PIL import Image

from ddpm_kedro.images.augmentation import AugmentedImages, to_uint8
from ddpm_kedro.images.grid import labelled_grid
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import DiffusersModel, TrainedModel, to_diffusers, why_not
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.provenance import differences
from ddpm_kedro.training.hardware import choose_hardware
from ddpm_kedro.training.loop import Report, train
from ddpm_kedro.training.progress import summary
from ddpm_kedro.training.randomness import augmentation_generator, batch_indices
from ddpm_kedro.training.run import Checkpoint, Row, Run, made_by

logger = logging.getLogger(__name__)
PREVIEW = 100  # images of the preview, at most
TrainingOutputs = tuple[dict[str, Image.Image], list[Row], Checkpoint | dict[str, Any]]


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

    Goes on from ``resume_checkpoint`` where that is of the same run: equal parameters, images and initial weights.

    Yields:
        Preview pictures by name, all rows of the history, and a checkpoint ({} where none is due).
    """
    run = Run.of(augmented_images, model, diffusion, optimizer, training, initial_model)
    resume = _same_run(resume_checkpoint, run)
    if resume is not None and resume.finished:
        logger.info("Run %s is already trained: %s images seen.", run.run_id, f"{resume.images_seen:,}")
        yield {}, resume.history, {}
        return
    if resume is None and initial_model is not None:
        _tell_start(initial_model, run)
    hardware = choose_hardware(training.device, training.precision)
    logger.info("Training on %s", hardware.reason)
    for report in train(run, augmented_images, holdout_images, hardware, resume, stop_request.is_set):
        if report.history and report.history[-1]["images_seen"] == report.images_seen:
            logger.info(summary(report.history[-1], run.num_images))
        yield _previews(report, run), report.history, report.checkpoint or {}


def export_model(checkpoint: Checkpoint) -> TrainedModel:
    """The averaged weights, with the configuration that rebuilds the network."""
    config = {
        "images_seen": checkpoint.images_seen,
        "image_shape": checkpoint.image_shape,
        "class_names": checkpoint.class_names,
        **made_by(checkpoint).as_dict(),
    }
    return TrainedModel.from_config(config, checkpoint.average)


def export_to_diffusers(model: TrainedModel) -> DiffusersModel | dict[str, Any]:
    """The model in diffusers' format; {} where it has no equal there, which is said."""
    if reason := why_not(model):
        logger.info("Not exported to diffusers: %s.", reason)
        return {}
    return to_diffusers(model)


def _tell_start(initial_model: TrainedModel, run: Run) -> None:
    """What the weights were trained with, where that is something else."""
    logger.info("Starts from the weights %s of run %s.", run.initial_model, initial_model.run_id)
    if changed := differences({"diffusion": initial_model.diffusion.shaping()}, {"diffusion": run.diffusion.shaping()}):
        logger.warning("The initial model was trained with another diffusion: %s", "; ".join(changed))


def _same_run(checkpoint: Checkpoint | None, run: Run) -> Checkpoint | None:
    """The checkpoint, if it is of this run; says what happens."""
    if checkpoint is None:
        logger.info("Run %s starts.", run.run_id)
        return None
    if checkpoint.run_id == run.run_id:
        if not checkpoint.finished:
            logger.info("Run %s goes on after %s images.", run.run_id, f"{checkpoint.images_seen:,}")
        return checkpoint
    changed = differences(checkpoint.parameters, run.parameters)
    if checkpoint.data != run.data:
        changed.append(f"training images: {checkpoint.data} → {run.data}")
    if checkpoint.initial_model != run.initial_model:
        changed.append(f"initial weights: {checkpoint.initial_model or 'none'} → {run.initial_model or 'none'}")
    logger.info(
        "Run %s starts anew, since these differ from run %s: %s", run.run_id, checkpoint.run_id, "; ".join(changed)
    )
    return None


def _previews(report: Report, run: Run) -> dict[str, Image.Image]:
    """One picture, its name unique among all runs."""
    if report.preview is None:
        return {}
    labels = None if report.preview_labels is None else report.preview_labels.numpy()
    grid = labelled_grid(report.preview.numpy(), labels, run.class_names)
    return {f"{run.run_id}/images_seen_{report.images_seen:010d}": grid}
