"""Pictures of a trained model, drawn batch by batch on the hardware that is there."""

import logging
import re
import time
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpm_kedro.diffusion import SamplingPlan, draw_images
from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import SamplingParameters
from ddpm_kedro.progress import progress

logger = logging.getLogger(__name__)
USUAL_GUIDANCE = 1.75  # of models with classes that were trained with the empty label, too
INDEX = re.compile("0|[1-9][0-9]*")


def draw(
    model: TrainedModel,
    plan: SamplingPlan,
    sampling: SamplingParameters,
    labels: Tensor | None,
    count: int,
    **given: Any,
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Draw pictures 0 … count-1 of ``sampling.seed``.

    Args:
        labels: (count,) int64, or None.
        given: what :func:`draw_images` takes for each picture, such as ``image`` and ``mask``, (count, …) each.

    Returns:
        (count, H, W, C) uint8, and a report on how they were drawn, as plain data.

    Raises:
        UserError: for images that are not finite.
    """
    _warn_without_empty_label(model, labels, plan.guidance_scale)
    hardware = choose_hardware(sampling.device, sampling.precision)
    logger.info(
        "Drawing %d images with %d steps of %s on %s", count, len(plan.steps) - 1, plan.sampler, hardware.reason
    )
    start = time.perf_counter()
    network = model.network.to(hardware.device).to(memory_format=torch.channels_last)
    batches, numbers = [], torch.arange(count).split(sampling.batch_size)
    # Heun's method asks the network once or twice a step.
    steps = None if plan.sampler == "heun" else len(numbers) * (len(plan.steps) - 1)
    with _Evaluations(network) as evaluations, progress("drawing", steps, "steps") as advance:
        for indices in numbers:
            chosen = None if labels is None else labels[indices]
            parts = {name: tensor[indices] for name, tensor in given.items()}
            drawn = draw_images(
                network,
                plan,
                model.image_shape,
                sampling.seed,
                indices.tolist(),
                chosen,
                hardware.autocast,
                watch=lambda *_: advance(1),
                **parts,
            )
            if not drawn.isfinite().all():
                raise UserError(
                    f"The model gives images that are not finite, on {hardware.reason} with {plan.sampler}. Try "
                    "sampling.precision=fp32; if that does not help, train it again with a lower optimizer.lr."
                )
            batches.append(to_uint8(drawn).cpu())
    images = torch.cat(batches).numpy()
    return images, _report(model, plan, hardware, count, evaluations.images / count, time.perf_counter() - start)


def plan_of(model: TrainedModel, sampling: SamplingParameters, strength: float = 1.0) -> SamplingPlan:
    """How to draw, each sampler with its own options.

    Raises:
        UserError: for more steps than the model has, or a spacing that its schedule does not allow.
    """
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
        options=options.get(sampling.sampler),
    )
    try:
        _ = plan.steps
    except ValueError as error:
        raise UserError(f"sampling.timestep_spacing = {sampling.timestep_spacing}: {error}.") from error
    return plan


def labels_of(model: TrainedModel, wanted: int | str | None, count: int) -> Tensor | None:
    """Return the class of each image (count,): the wanted one, or all in turn; None for a model without classes.

    The wanted class is the one that is called so. A number is its index, where no class is called so.

    Raises:
        UserError: for a class that the model does not know.
    """
    classes = model.class_names
    name = None if wanted is None or (wanted == "null" and "null" not in classes) else str(wanted)
    if not classes:
        if name is not None:
            raise UserError(f"sampling.label = {wanted!r}, but this model was trained without classes.")
        return None
    if name is None:
        return torch.arange(count) % len(classes)
    if name in classes:
        return torch.full((count,), classes.index(name))
    if INDEX.fullmatch(name) and int(name) < len(classes):
        logger.info("sampling.label = %s is the index of the class %s.", name, classes[int(name)])
        return torch.full((count,), int(name))
    raise UserError(f"sampling.label = {wanted!r} is no class of this model. {nearest(name, list(classes))}")


def _guidance_scale(model: TrainedModel, sampling: SamplingParameters) -> float:
    if sampling.guidance_scale is None:
        return USUAL_GUIDANCE if model.knows_empty_label else 1.0
    if sampling.guidance_scale != 1 and not model.class_names:
        raise UserError(
            f"sampling.guidance_scale = {sampling.guidance_scale:g}, but this model was trained without classes: "
            "there is nothing to guide it by. Leave it at null, or at 1."
        )
    return sampling.guidance_scale


def _warn_without_empty_label(model: TrainedModel, labels: Tensor | None, guidance_scale: float) -> None:
    """Warn where the network is asked about the empty label, but was never trained with it."""
    if model.knows_empty_label or not model.class_names or (labels is not None and guidance_scale == 1):
        return
    asked = "No class is chosen" if labels is None else f"sampling.guidance_scale = {guidance_scale:g}"
    better = "Choose sampling.label" if labels is None else "Leave sampling.guidance_scale at null"
    logger.warning(
        "%s, but this model has never learnt images without a label (training.label_dropout = 0, or imported without "
        "an empty label): colours and shapes will be wrong. %s.",
        asked,
        better,
    )


class _Evaluations:
    """Counts the pictures that a network is asked about."""

    def __init__(self, network: nn.Module) -> None:
        self.images = 0
        self._handle = network.register_forward_hook(self._count)

    def __enter__(self) -> "_Evaluations":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _count(self, network: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self.images += len(output)


def _report(
    model: TrainedModel, plan: SamplingPlan, hardware: Hardware, count: int, evaluations: float, seconds: float
) -> dict[str, Any]:
    """How samples were drawn: what a figure of merit must be read with."""
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
    }
