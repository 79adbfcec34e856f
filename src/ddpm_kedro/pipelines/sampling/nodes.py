"""Sample images with a trained model, and render them."""

from typing import Any

from PIL import Image

from ddpm_kedro.images.class_names import file_names
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import SamplingParameters
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.reporting.grid import labelled_grid, to_pil
from ddpm_kedro.sampling.generation import choose_labels, generate, sampling_plan
from ddpm_kedro.sampling.samples import Samples

GRID = 100  # images of the grid, at most


def sample_images(model: TrainedModel, sampling: SamplingParameters) -> tuple[Samples, dict[str, Any]]:
    """Sample images of ``sampling.label``, or of all classes in turn, and report how, as plain data.

    Raises:
        UserError: for a class that the model does not know, or more steps than it has.
    """
    labels = choose_labels(model, sampling.label, sampling.num_images)
    images, report = generate(model, sampling_plan(model, sampling), sampling, labels, sampling.num_images)
    samples = Samples(
        images=images,
        labels=None if labels is None else labels.numpy(),
        class_names=model.class_names,
        made_by=Provenance({"sampling": sampling.fingerprint_fields()}, {"model": model.run_id}),
    )
    return samples, report


def render_samples(samples: Samples) -> tuple[Image.Image, dict[str, Image.Image]]:
    """Render a grid of the first images, one column per class, and every image as a file."""
    shown = slice(0, GRID)
    labels = None if samples.labels is None else samples.labels[shown]
    grid = labelled_grid(samples.images[shown], labels, samples.class_names)
    digits = len(str(len(samples.images) - 1))
    names = [f"{index:0{digits}d}" for index in range(len(samples.images))]
    if samples.labels is not None:
        classes = file_names(samples.class_names)
        names = [f"{name}_{classes[label]}" for name, label in zip(names, samples.labels, strict=True)]
    return grid, {name: to_pil(image) for name, image in zip(names, samples.images, strict=True)}
