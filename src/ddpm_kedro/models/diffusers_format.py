"""Models in diffusers' format, there and back: configurations and tensors, no files and no diffusers."""

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
CLASSES, SINUSOID, TIME_BIAS = (
    "class_embedding.weight",
    "time_embedding.linear_1.weight",
    "time_embedding.linear_2.bias",
)


@dataclass(frozen=True)
class DiffusersModel:
    """What a folder in diffusers' format holds.

    Attributes:
        unet: configuration of a ``UNet2DModel``, and its tensors.
        scheduler: configuration of a scheduler.
        with_classes: the same network with its classes, where it has any, since diffusers' pipelines know none.
        own: what this project notes beside it; None in a folder that others wrote.
        fingerprint: of the files that it was read from.
    """

    unet: Part
    scheduler: Config
    with_classes: Part | None = None
    own: Config | None = None
    fingerprint: str = ""


def unsupported_reason(model: TrainedModel) -> str | None:
    """Why a model has no equal in diffusers, or None where it has one."""
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
    """The same model for diffusers, where :func:`unsupported_reason` finds nothing against it.

    ``DDPMPipeline`` gives no labels: in ``unet`` the empty label's embedding is part of the bias that it is added to.
    """
    state: Weights = model.network.state_dict()
    config, weights, with_classes = unet_config(model.parameters, model.image_shape), _widened(state, model), None
    if model.class_names:
        with_classes = config | {"num_class_embeds": len(model.class_names) + 1}, dict(weights)
        weights[TIME_BIAS] = weights[TIME_BIAS] + weights.pop(CLASSES)[-1]
    own = model.config() | {"weights_fingerprint": weights_fingerprint(state)}
    return DiffusersModel((config, weights), scheduler_config(model.diffusion), with_classes, own)


def from_diffusers(found: DiffusersModel, class_names: Sequence[str] | None = None) -> TrainedModel:
    """The model that a folder in diffusers' format holds; one that :func:`to_diffusers` made is as it was before.

    Args:
        found: what the folder holds.
        class_names: of a model with class embeddings, see :func:`_classes`.

    Raises:
        UserError: for what this project does not support, by its key; for tensors that are not the network's.
    """
    if found.own is not None:
        return _exported(found, found.own)
    config, weights = found.unet[0], _renamed(found.unet[1])
    parameters, diffusion, shape = model_parameters(config), diffusion_parameters(found.scheduler), image_shape(config)
    names, weights = _classes(config.get("num_class_embeds"), class_names, weights)
    groups = {"model": parameters.fingerprint_fields(), "diffusion": diffusion.fingerprint_fields()}
    described = {
        "parameters": groups,
        "inputs": {"imported": found.fingerprint},
        "image_shape": shape,
        "class_names": names,
        "images_seen": 0,  # nothing tells
        "imported": True,
    }
    return _imported(described, weights)


def _imported(described: Config, weights: Weights) -> TrainedModel:
    try:
        return TrainedModel.from_config(described, weights)
    except UserError as error:
        raise UserError(f"The U-Net to import cannot be used: {error}.") from None


def _exported(found: DiffusersModel, own: Config) -> TrainedModel:
    """The model that :func:`to_diffusers` was given, if nothing has changed since."""
    _, weights = found.with_classes or found.unet
    try:
        parameters = ModelParameters.model_validate(own["parameters"]["model"])
        model = TrainedModel.from_config(own | {"imported": True}, _narrowed(weights, parameters))
        again = to_diffusers(model)
        unchanged = (
            weights_fingerprint(model.network.state_dict()) == own["weights_fingerprint"]
            and _same(again.unet, found.unet)
            and _same(again.with_classes, found.with_classes)
        )
    except (KeyError, TypeError, IndexError, ValidationError, RuntimeError, UserError):
        unchanged = False
    if not unchanged:
        raise UserError(
            "This folder has changed since it was exported: its networks are not those that its ddpm_kedro.json "
            "describes. To import unet/ as it is now, move ddpm_kedro.json away."
        )
    return model


def _same(one: Part | None, other: Part | None) -> bool:
    if one is None or other is None:
        return one is other
    same_config = all(other[0].get(key) == value for key, value in one[0].items() if not key.startswith("_"))
    return same_config and weights_fingerprint(one[1]) == weights_fingerprint(other[1])


def _widened(weights: Mapping[str, Tensor], model: TrainedModel) -> Weights:
    """Weights for a sinusoid as wide as the first level, see :func:`unet_config`: what is more weighs nothing."""
    sines, cosines = weights[SINUSOID].chunk(2, dim=1)  # (4·width, width / 2) each
    p = model.parameters
    more = sines.new_zeros(len(sines), p.width * (p.channel_multipliers[0] - 1) // 2)
    return {**weights, SINUSOID: torch.cat([sines, more, cosines, more], dim=1)}


def _narrowed(weights: Weights, p: ModelParameters) -> Weights:
    """What :func:`_widened` was given."""
    sines, cosines = weights[SINUSOID].chunk(2, dim=1)
    half = p.width // 2
    return {**weights, SINUSOID: torch.cat([sines[:, :half], cosines[:, :half]], dim=1)}


def _renamed(weights: Weights) -> Weights:
    """In float32, attention by its names of today: diffusers renames the older ones when it loads them, too."""
    pattern = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(OLD_NAMES)})\.")
    return {
        pattern.sub(lambda found: f"{found[1]}.{OLD_NAMES[found[2]]}.", name): tensor.float()
        for name, tensor in weights.items()
    }


def _classes(count: Any, names: Sequence[str] | None, weights: Weights) -> tuple[tuple[str, ...], Weights]:
    """Names of the classes, and weights that end with an embedding of the empty label.

    One name fewer than embeddings: the last one is the empty label's. As many names, or none given: all are classes,
    and their mean stands for no class in particular. Without names, classes are called by their numbers.
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
            f"{count}, or {count - 1} where the last one is the empty label of classifier-free guidance."
        )
    mean = weights[CLASSES].mean(dim=0, keepdim=True)
    return named, weights | {CLASSES: torch.cat([weights[CLASSES], mean])}
