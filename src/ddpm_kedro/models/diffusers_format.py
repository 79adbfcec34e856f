"""Convert models to diffusers' format and back: configurations and tensors, without files and without diffusers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.models.diffusers_config import (
    PREDICTION_TYPES,
    SCHEDULES,
    Config,
    diffusion_parameters,
    image_shape,
    model_parameters,
    scheduler_config,
    unet_config,
)
from ddpm_kedro.models.trained import TrainedModel
from ddpm_kedro.models.unet import UNet
from ddpm_kedro.models.weights import weights_fingerprint
from ddpm_kedro.parameters import ModelParameters

Weights = dict[str, Tensor]
Part = tuple[Config, Weights]
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
CLASSES = "class_embedding.weight"
SINUSOID = "time_embedding.linear_1.weight"
TIME_BIAS = "time_embedding.linear_2.bias"


@dataclass(frozen=True)
class DiffusersModel:
    """The content of a folder in diffusers' format.

    Attributes:
        unet: configuration of a ``UNet2DModel``, and its tensors.
        scheduler: configuration of a scheduler.
        with_classes: the same network with its classes, if it has any: diffusers' pipelines support none.
        own: this project's configuration of the model; None in a folder that other programs wrote.
        fingerprint: fingerprint of the files that the model was read from.
    """

    unet: Part
    scheduler: Config
    with_classes: Part | None = None
    own: Config | None = None
    fingerprint: str = ""


def unsupported_reason(model: TrainedModel) -> str | None:
    """Return why diffusers has no equivalent of a model, or None if it has one."""
    p, diffusion, (_, height, width) = model.parameters, model.diffusion, model.image_shape
    if not isinstance(model.network, UNet):
        return f"diffusers' UNet2DModel is a U-Net, and model.network is {p.network}"
    multiple = 2 ** (len(p.channel_multipliers) - 1)
    if p.patch_size != 1:
        return f"diffusers' UNet2DModel has no patches, and model.patch_size is {p.patch_size}"
    if height % multiple or width % multiple:
        return f"diffusers' UNet2DModel takes multiples of {multiple} pixels, and the images are {height}×{width}"
    if diffusion.schedule not in SCHEDULES or diffusion.target not in PREDICTION_TYPES:
        return f"diffusers' schedulers have no {diffusion.schedule} schedule with the target {diffusion.target}"
    return None


def to_diffusers(model: TrainedModel) -> DiffusersModel:
    """Convert a model for which :func:`unsupported_reason` returns None.

    ``DDPMPipeline`` passes no labels: in ``unet``, the embedding of the empty label is added to the bias.
    """
    state: Weights = model.network.state_dict()
    config, weights, with_classes = unet_config(model.parameters, model.image_shape), _widened(state, model), None
    if model.class_names:
        with_classes = config | {"num_class_embeds": len(model.class_names) + 1}, dict(weights)
        weights[TIME_BIAS] = weights[TIME_BIAS] + weights.pop(CLASSES)[-1]
    own = model.config() | {"weights_fingerprint": weights_fingerprint(state)}
    return DiffusersModel((config, weights), scheduler_config(model.diffusion), with_classes, own)


def from_diffusers(found: DiffusersModel, class_names: Sequence[str] | None = None) -> TrainedModel:
    """Convert a model in diffusers' format; a model from :func:`to_diffusers` is restored exactly.

    ``class_names`` name the class embeddings, see :func:`_classes`.

    Raises:
        UserError: for values that this project does not support, by key, and tensors that do not fit the network.
    """
    if found.own is not None:
        return _exported(found, found.own)
    config, weights = found.unet
    groups = {"model": model_parameters(config), "diffusion": diffusion_parameters(found.scheduler)}
    names, weights = _classes(config.get("num_class_embeds"), class_names, _renamed(weights))
    description = {
        "parameters": {name: group.fingerprint_fields() for name, group in groups.items()},
        "inputs": {"imported": found.fingerprint},
        "image_shape": image_shape(config),
        "class_names": names,
        "images_seen": 0,  # unknown
        "imported": True,
    }
    try:
        return TrainedModel.from_config(description, weights)
    except UserError as error:
        raise UserError(f"The U-Net to import cannot be used: {error}.") from None


def _exported(found: DiffusersModel, own: Config) -> TrainedModel:
    """Restore the model that :func:`to_diffusers` converted, if the folder has not changed since."""
    _, weights = found.with_classes or found.unet
    try:
        parameters = ModelParameters.model_validate(own["parameters"]["model"])
        model = TrainedModel.from_config(own | {"imported": True}, _narrowed(weights, parameters))
        expected = to_diffusers(model)
        unchanged = (
            weights_fingerprint(model.network.state_dict()) == own["weights_fingerprint"]
            and _same(expected.unet, found.unet)
            and _same(expected.with_classes, found.with_classes)
        )
    except (KeyError, TypeError, IndexError, ValidationError, RuntimeError, UserError):
        unchanged = False
    if not unchanged:
        raise UserError(
            "This folder has changed since it was exported: its networks are not the ones that its ddpm_kedro.json "
            "describes. To import unet/ as it is now, move ddpm_kedro.json away."
        )
    return model


def _same(one: Part | None, other: Part | None) -> bool:
    if one is None or other is None:
        return one is other
    same_config = all(other[0].get(key) == value for key, value in one[0].items() if not key.startswith("_"))
    return same_config and weights_fingerprint(one[1]) == weights_fingerprint(other[1])


def _widened(weights: Mapping[str, Tensor], model: TrainedModel) -> Weights:
    """Widen the time embedding to the width of the first level, see :func:`unet_config`: new weights are 0."""
    sines, cosines = weights[SINUSOID].chunk(2, dim=1)  # (4·width, width / 2) each
    p = model.parameters
    zeros = sines.new_zeros(len(sines), p.width * (p.channel_multipliers[0] - 1) // 2)
    return {**weights, SINUSOID: torch.cat([sines, zeros, cosines, zeros], dim=1)}


def _narrowed(weights: Weights, p: ModelParameters) -> Weights:
    """Invert :func:`_widened`."""
    sines, cosines = weights[SINUSOID].chunk(2, dim=1)
    half = p.width // 2
    return {**weights, SINUSOID: torch.cat([sines[:, :half], cosines[:, :half]], dim=1)}


def _renamed(weights: Weights) -> Weights:
    """Convert to float32, and rename attention layers of earlier versions as diffusers does."""
    pattern = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(OLD_NAMES)})\.")
    return {
        pattern.sub(lambda found: f"{found[1]}.{OLD_NAMES[found[2]]}.", name): tensor.float()
        for name, tensor in weights.items()
    }


def _classes(count: Any, names: Sequence[str] | None, weights: Weights) -> tuple[tuple[str, ...], Weights]:
    """Return the class names, and weights whose last class embedding is the empty label's.

    With one name fewer than embeddings, the last embedding is the empty label's. With as many names, or without names,
    all embeddings are classes, and their mean becomes the empty label's. Without names, the numbers are the names.
    """
    if count is None:
        if names:
            raise UserError("import_model.class_names are given, but the model to import has no class embeddings.")
        return (), weights
    if CLASSES not in weights:
        raise UserError(f"The U-Net to import has num_class_embeds = {count}, but tensors 1 missing ({CLASSES}).")
    if len(weights[CLASSES]) != count:
        raise UserError(f"The U-Net to import has num_class_embeds = {count}, but {len(weights[CLASSES])} embeddings.")
    named = tuple(names) if names else tuple(str(number) for number in range(count))
    if len(named) == count - 1:
        return named, weights
    if len(named) != count:
        raise UserError(
            f"import_model.class_names has {len(named)} names, but the model has {count} class embeddings: give "
            f"{count}, or {count - 1} if the last one is the empty label of classifier-free guidance."
        )
    mean = weights[CLASSES].mean(dim=0, keepdim=True)
    return named, weights | {CLASSES: torch.cat([weights[CLASSES], mean])}
