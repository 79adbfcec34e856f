"""Generate images with a trained model, batch by batch on the available hardware."""

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm_kedro.diffusion import SAMPLERS, SamplingPlan, generate_images
from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import SamplingParameters
from ddpm_kedro.progress import progress

logger = logging.getLogger(__name__)
DEFAULT_GUIDANCE = 1.75  # for models that were trained with classes and the empty label
INDEX = re.compile("0|[1-9][0-9]*")


def generate(
    model: TrainedModel,
    plan: SamplingPlan,
    sampling: SamplingParameters,
    labels: Tensor | None,
    count: int,
    **conditions: Tensor,
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Generate images 0 … count-1 of ``sampling.seed``, (count, H, W, C) uint8, and a report on how, as plain data.

    Args:
        labels: classes of the images, (count,) int64, or None.
        conditions: per-image arguments of :func:`generate_images`, such as ``image`` and ``mask``, (count, …) each.

    Raises:
        UserError: for images that are not finite.
    """
    _warn_without_empty_label(model, labels, plan.guidance_scale)
    hardware = choose_hardware(sampling.device, sampling.precision)
    how = f"{len(plan.steps) - 1} steps of {plan.sampler}, guidance {plan.guidance_scale:g}"
    logger.info("Generating %d images on %s: %s", count, hardware.device.type, how)
    logger.debug("Sampling on %s", hardware.reason)
    start = time.perf_counter()
    network = model.network.to(hardware.device).to(memory_format=torch.channels_last)
    batches = torch.arange(count).split(sampling.batch_size)
    conditions = conditions if labels is None else conditions | {"labels": labels}
    evaluated: list[int] = []  # images per evaluation of the network
    with (
        network.register_forward_hook(lambda network, inputs, output: evaluated.append(len(output))),
        progress("sampling", len(batches) * plan.evaluations, "network evaluations") as advance,
    ):
        images = [
            _generate_batch(model, plan, sampling.seed, batch, hardware, advance, conditions) for batch in batches
        ]
    report = _report(model, plan, hardware, count, sum(evaluated) / count, time.perf_counter() - start)
    return torch.cat(images).numpy(), report


def sampling_plan(model: TrainedModel, sampling: SamplingParameters, strength: float = 1.0) -> SamplingPlan:
    """Return the plan that the parameters describe, with the options of the chosen sampler.

    Raises:
        UserError: for more steps than the model has, or a spacing that its schedule does not allow.
    """
    timesteps = model.diffusion.num_timesteps
    if sampling.num_inference_steps > timesteps:
        raise UserError(
            f"sampling.num_inference_steps = {sampling.num_inference_steps} is more than the {timesteps} timesteps "
            "the model was trained with."
        )
    plan = SamplingPlan(
        diffusion=model.diffusion,
        sampler=sampling.sampler,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=_guidance_scale(model, sampling),
        guidance_interval=sampling.guidance_interval,
        threshold=sampling.threshold,
        spacing=sampling.timestep_spacing,
        rho=sampling.karras_rho,
        strength=strength,
        options={option: getattr(sampling, name) for option, name in SAMPLERS[sampling.sampler].options.items()},
    )
    try:
        _ = plan.steps
    except ValueError as error:
        raise UserError(f"sampling.timestep_spacing = {sampling.timestep_spacing}: {error}.") from error
    return plan


def choose_labels(model: TrainedModel, label: int | str | None, count: int) -> Tensor | None:
    """Return the class of each image (count,) int64: the given one, or all in turn; None for a model without classes.

    A label is the name of a class. A number that no class is named after is an index.

    Raises:
        UserError: for a class that the model does not know.
    """
    classes = model.class_names
    name = None if label is None or (label == "null" and "null" not in classes) else str(label)
    if not classes:
        if name is not None:
            raise UserError(f"sampling.label = {label!r}, but this model was trained without classes.")
        return None
    if name is None:
        return torch.arange(count) % len(classes)
    if name in classes:
        return torch.full((count,), classes.index(name))
    if INDEX.fullmatch(name) and int(name) < len(classes):
        logger.info("sampling.label = %s is the index of the class %s.", name, classes[int(name)])
        return torch.full((count,), int(name))
    raise UserError(f"sampling.label = {label!r} is not a class of this model. {nearest(name, list(classes))}")


def _generate_batch(
    model: TrainedModel,
    plan: SamplingPlan,
    seed: int,
    indices: Tensor,
    hardware: Hardware,
    advance: Callable[[int], None],
    conditions: dict[str, Tensor],
) -> Tensor:
    images = generate_images(
        model.network,
        plan,
        model.image_shape,
        seed,
        indices.tolist(),
        autocast=hardware.autocast,
        callback=lambda *_: advance(1),
        **{name: tensor[indices] for name, tensor in conditions.items()},
    )
    if not images.isfinite().all():
        raise UserError(
            f"The model generated images that are not finite, on {hardware.reason} with {plan.sampler}. Try "
            "sampling.precision=fp32; if that does not help, train it again with a lower optimizer.lr."
        )
    return to_uint8(images).cpu()


def _guidance_scale(model: TrainedModel, sampling: SamplingParameters) -> float:
    if sampling.guidance_scale is None:
        return DEFAULT_GUIDANCE if model.knows_empty_label else 1.0
    if sampling.guidance_scale != 1 and not model.class_names:
        raise UserError(
            f"sampling.guidance_scale = {sampling.guidance_scale:g}, but this model was trained without classes, "
            "which guidance needs. Leave it at null, or set it to 1."
        )
    return sampling.guidance_scale


def _warn_without_empty_label(model: TrainedModel, labels: Tensor | None, guidance_scale: float) -> None:
    """Warn if the network is evaluated with the empty label, but was never trained with it."""
    if model.knows_empty_label or not model.class_names or (labels is not None and guidance_scale == 1):
        return
    cause = "No class is chosen" if labels is None else f"sampling.guidance_scale = {guidance_scale:g}"
    remedy = "Choose sampling.label" if labels is None else "Leave sampling.guidance_scale at null"
    logger.warning(
        "%s, but this model was never trained with the empty label (training.label_dropout = 0, or imported without "
        "an empty label): colours and shapes will be wrong. %s.",
        cause,
        remedy,
    )


def _report(
    model: TrainedModel, plan: SamplingPlan, hardware: Hardware, count: int, evaluations: float, seconds: float
) -> dict[str, Any]:
    """Report how samples were generated: the conditions under which a metric is valid."""
    return {
        "run_id": model.run_id,
        "images_seen": model.images_seen,
        "weights": "ema",
        "num_images": count,
        "sampler": plan.sampler,
        **(plan.options or {}),
        "num_inference_steps": plan.num_inference_steps,
        "timestep_spacing": plan.spacing,
        "threshold": plan.threshold,
        "guidance_scale": plan.guidance_scale,
        "guidance_interval": plan.guidance_interval,
        "network_evaluations": round(evaluations),
        "seconds": round(seconds, 3),
        "device": hardware.reason,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
