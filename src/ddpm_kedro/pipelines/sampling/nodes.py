"""Draw images with a trained model, and show them."""

import logging
import time
from typing import Any

import torch
from PIL import Image

from ddpm_kedro.datasets.samples import Samples
from ddpm_kedro.diffusion import SamplingPlan, draw_images
from ddpm_kedro.images.augmentation import to_uint8
from ddpm_kedro.images.grid import labelled_grid, to_picture
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import SamplingParameters, UserError, nearest
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.training.hardware import Hardware, choose_hardware

logger = logging.getLogger(__name__)
GRID = 100  # images of the grid, at most


def sample_images(model: TrainedModel, sampling: SamplingParameters) -> tuple[Samples, dict[str, Any]]:
    """Draw ``sampling.num_images`` images; for a model with classes, equally many of each.

    Returns:
        The samples, and a report on how they were drawn, as plain data.

    Raises:
        UserError: for a class the model does not know, or more steps than it has.
    """
    labels, plan = _labels(model, sampling), _plan(model, sampling)
    hardware = choose_hardware(sampling.device, sampling.precision)
    logger.info(
        "Drawing %d images with %d steps of %s on %s",
        sampling.num_images,
        plan.num_inference_steps,
        plan.sampler,
        hardware.reason,
    )
    start = time.perf_counter()
    network = model.network.to(hardware.device).to(memory_format=torch.channels_last)
    batches = [
        to_uint8(
            draw_images(
                network,
                plan,
                model.image_shape,
                sampling.seed,
                indices.tolist(),
                None if labels is None else labels[indices],
                hardware.autocast,
            )
        ).cpu()
        for indices in torch.arange(sampling.num_images).split(sampling.batch_size)
    ]
    samples = Samples(
        images=torch.cat(batches).numpy(),
        labels=None if labels is None else labels.numpy(),
        class_names=model.class_names,
        made_by=Provenance({"sampling": sampling.shaping()}, {"model": model.run_id}),
    )
    return samples, _report(model, plan, hardware, sampling.num_images, time.perf_counter() - start)


def render_samples(samples: Samples) -> tuple[Image.Image, dict[str, Image.Image]]:
    """A grid of the first images, each class in a column, and every image by itself."""
    shown = slice(0, GRID)
    labels = None if samples.labels is None else samples.labels[shown]
    grid = labelled_grid(samples.images[shown], labels, samples.class_names)
    digits = len(str(len(samples.images) - 1))
    names = [f"{index:0{digits}d}" for index in range(len(samples.images))]
    if samples.labels is not None:
        names = [
            f"{name}_{_file_name(samples.class_names[label])}"
            for name, label in zip(names, samples.labels, strict=True)
        ]
    return grid, {name: to_picture(image) for name, image in zip(names, samples.images, strict=True)}


def _report(
    model: TrainedModel, plan: SamplingPlan, hardware: Hardware, num_images: int, seconds: float
) -> dict[str, Any]:
    """How samples were drawn: what a figure of merit must be read with."""
    guided = bool(model.class_names) and plan.guidance_scale != 1
    return {
        "run_id": model.run_id,
        "images_seen": model.images_seen,
        "weights": "ema",
        "num_images": num_images,
        "sampler": plan.sampler,
        "num_inference_steps": plan.num_inference_steps,
        "guidance_scale": plan.guidance_scale,
        "network_evaluations": plan.num_inference_steps * (2 if guided else 1),
        "seconds": round(seconds, 3),
        "device": hardware.reason,
    }


def _plan(model: TrainedModel, sampling: SamplingParameters) -> SamplingPlan:
    """How to draw, each sampler with its own options."""
    timesteps = model.diffusion.num_timesteps
    if sampling.num_inference_steps > timesteps:
        raise UserError(
            f"sampling.num_inference_steps = {sampling.num_inference_steps} is more than the {timesteps} timesteps "
            "the model was trained with."
        )
    options: dict[str, dict[str, Any]] = {
        "ddim": {"eta": sampling.ddim_eta},
        "ddpm": {"variance": sampling.ddpm_variance},
    }
    return SamplingPlan(
        diffusion=model.diffusion,
        sampler=sampling.sampler,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        options=options[sampling.sampler],
    )


def _labels(model: TrainedModel, sampling: SamplingParameters) -> torch.Tensor | None:
    """The class of each image, in turn; None for a model without classes."""
    classes, wanted = model.class_names, sampling.label
    if not classes:
        if wanted is not None:
            raise UserError(f"sampling.label = {wanted!r}, but this model was trained without classes.")
        return None
    if wanted is None:
        return torch.arange(sampling.num_images) % len(classes)
    if str(wanted) in classes:
        return torch.full((sampling.num_images,), classes.index(str(wanted)))
    if isinstance(wanted, int) and 0 <= wanted < len(classes):
        return torch.full((sampling.num_images,), wanted)
    raise UserError(f"sampling.label = {wanted!r} is no class of this model. {nearest(str(wanted), list(classes))}")


def _file_name(class_name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in class_name)
