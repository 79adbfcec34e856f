"""Train for a number of seconds, then score the samples and real images."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from benchmarks.gpu.images import made_images, read_pack
from benchmarks.gpu.settings import Settings, parameters
from benchmarks.gpu.steps import as_in_a_run
from benchmarks.training.networks import our_parameters
from benchmarks.training.quality import scores_of
from benchmarks.training.results import Row
from numpy.typing import NDArray

from ddpm_kedro.hardware import choose_hardware, keep_freed_memory
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.classifier import fit_classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.models import TrainedModel, UNet
from ddpm_kedro.parameters import EvaluationParameters
from ddpm_kedro.reporting.grid import labelled_grid
from ddpm_kedro.sampling.generation import choose_labels, generate, sampling_plan
from ddpm_kedro.training.loop import train
from ddpm_kedro.training.run import Checkpoint, Run

USE = {"diffusion": "cosine_v", "optimizer": "adam", "augmentation": "flips", "training": "ho2020"}
RECIPE = {
    "optimizer__lr": 8e-4,
    "optimizer__lr_schedule": "constant",  # the clock decides when training ends
    "training__ema_half_life": 177_000,  # at batch 256 a decay of 0.999 per step
    "training__label_dropout": 0.1,
    "training__preview_images": 0,
}
ENDLESS = 10**9  # images
SHOWN = 100  # samples of the grid


class Clock:
    """A ``should_stop`` that becomes true some seconds after its first call."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start = seconds, 0.0

    def __call__(self) -> bool:
        """Return whether the time is over."""
        now = time.perf_counter()
        self.start = self.start or now
        return now - self.start > self.seconds


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per report of training, then the scores of samples and of real images."""
    as_in_a_run(settings.device)
    keep_freed_memory()
    sizes = settings.sizes
    training, holdout = read_pack(settings.images) if settings.images else made_images(sizes.shape.size)
    run = make_run(settings, training)
    checkpoint = None
    clock = Clock(sizes.train_seconds)
    images = AugmentedImages(training, run.augmentation)
    for report in train(run, images, holdout, choose_hardware(settings.device, "auto"), None, clock):
        checkpoint = report.checkpoint
        row = report.history[-1] if report.history else {}
        seconds = time.perf_counter() - clock.start
        yield {"seconds": seconds, "images_seen": report.images_seen, "validation_loss": row.get("validation_loss")}
    assert checkpoint is not None
    yield from score(settings, model_of(run, checkpoint), training, holdout)


def make_run(settings: Settings, training: ImageStore) -> Run:
    """Return the run: the measured network with classes, and a recipe for minutes."""
    sizes = settings.sizes
    lengths = {
        "training__batch_size": 256 if settings.device == "cuda" else 8,
        "training__num_images": ENDLESS,
        "training__report_interval": sizes.report_interval,
        "training__checkpoint_interval": ENDLESS,
        "training__validation_images": 512,
    }
    groups = parameters(USE, **RECIPE, **lengths)
    model = our_parameters(sizes.shape).model_copy(update={"class_conditional": True, "dropout": 0.1})
    images = AugmentedImages(training, groups["augmentation"])
    return Run.of(images, model, groups["diffusion"], groups["optimizer"], groups["training"])


def model_of(run: Run, checkpoint: Checkpoint) -> TrainedModel:
    """Return the model with the EMA weights of a checkpoint."""
    network = UNet(run.model, run.image_shape[0], len(run.class_names))
    network.load_state_dict(checkpoint.ema)
    return TrainedModel(network.eval(), run.record, checkpoint.images_seen)


def score(settings: Settings, model: TrainedModel, training: ImageStore, holdout: ImageStore) -> Iterator[Row]:
    """Yield KID, FD and accuracy, compared with the holdout: of samples without guidance, then of training images.

    The samples come first and are saved at once, since the time may not be enough for all.
    """
    sizes = settings.sizes
    changes = {"sampling__guidance_scale": 1.0, "sampling__device": settings.device, "sampling__batch_size": 500}
    sampling = parameters(**changes)["sampling"]
    labels = choose_labels(model, None, sizes.samples)
    assert labels is not None  # the run has classes
    samples, report = generate(model, sampling_plan(model, sampling), sampling, labels, sizes.samples)
    save_grid(settings.out / "samples.png", samples, labels, model.class_names)
    evaluation = parameters(evaluation__fit_images=sizes.fit_images)["evaluation"]
    start = time.perf_counter()
    extractor = fit(training, evaluation)
    fitted = time.perf_counter() - start
    extractor.network.to(settings.device)
    reference, logits = extractor(holdout.images)
    accuracy = float((logits.argmax(1) == torch.from_numpy(holdout.labels)).float().mean())
    yield {"classifier_seconds": fitted, "holdout": len(holdout), "accuracy_on_holdout": accuracy}

    def scores(images: NDArray[np.uint8], labels: torch.Tensor) -> Row:
        return scores_of(*extractor(images), reference, labels) | {"images": len(images)}

    description = f"samples, {report['num_inference_steps']} steps of {report['sampler']}"
    yield {"scored": description, "sampling_seconds": report["seconds"]} | scores(samples, labels)
    real = np.random.default_rng(0).permutation(len(training))[: sizes.samples]
    yield {"scored": "training images"} | scores(training.images[real], torch.from_numpy(training.labels[real]))


def fit(training: ImageStore, evaluation: EvaluationParameters) -> FeatureExtractor:
    """Return the evaluation classifier, fitted to the training images."""
    network = fit_classifier(training, evaluation)
    return FeatureExtractor("classifier", network, training.image_shape, training.class_names, training.made_by)


def save_grid(file: Path, samples: NDArray[np.uint8], labels: torch.Tensor, class_names: tuple[str, ...]) -> None:
    """Save a grid of samples, one column per class."""
    labelled_grid(samples[:SHOWN], labels[:SHOWN].numpy(), class_names).save(file)
