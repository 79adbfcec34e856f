"""Translate between configurations of diffusers' ``UNet2DModel`` and schedulers, and this project's parameters."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import DiffusionParameters, Group, ModelParameters

Config = dict[str, Any]
Accepted = dict[str, tuple[bool, str]]  # by key: whether its value is accepted, and what would be
G = TypeVar("G", bound=Group)

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
"""From ``diffusion.schedule`` to diffusers' ``beta_schedule``."""
PREDICTION_TYPES = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
"""From ``diffusion.target`` to diffusers' ``prediction_type``."""
SCHEDULERS = [
    "DDPMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
"""Equal betas are equal noise in all of them; how they sample is not a property of the model."""
DOWN_BLOCKS, UP_BLOCKS = ["DownBlock2D", "AttnDownBlock2D"], ["UpBlock2D", "AttnUpBlock2D"]  # without attention, with
LONGEST = 200  # characters of a value in an error
VERSION = "0.36.0"  # exported models are for this version of diffusers and later ones

# Values that all our U-Nets have; others are not supported.
UNET: Config = {
    "_class_name": "UNet2DModel",
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 0,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
}
# diffusers' own defaults, for keys that a configuration leaves out.
UNET_DEFAULTS: Config = UNET | {
    "_class_name": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "downsample_padding": 1,
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_dim": None,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
}
SCHEDULER: Config = {"trained_betas": None, "thresholding": False, "clip_sample_range": 1.0}
SCHEDULER_DEFAULTS: Config = SCHEDULER | {
    "_class_name": None,
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}


class _UNetTypes(BaseModel):
    """The types of the values that :func:`model_parameters` reads."""

    model_config = ConfigDict(strict=True)

    block_out_channels: list[PositiveInt]
    down_block_types: list[str]
    up_block_types: list[str]
    layers_per_block: PositiveInt
    in_channels: PositiveInt
    sample_size: PositiveInt | list[PositiveInt] | None
    num_class_embeds: PositiveInt | None


def unet_config(p: ModelParameters, image_shape: tuple[int, int, int]) -> Config:
    """Return the configuration of the equivalent ``UNet2DModel`` without classes, for images (C, H, W).

    The time embedding of diffusers has the width of the first level, ours has ``model.width``. With this
    ``freq_shift`` its first frequencies are ours; the weights of the other frequencies must be 0.
    """
    channels, height, width = image_shape
    block_out_channels = [p.width * m for m in p.channel_multipliers]
    attention = [level in p.attention_levels for level in range(len(block_out_channels))]
    extra_width = block_out_channels[0] - p.width
    return UNET | {
        "_diffusers_version": VERSION,
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "freq_shift": 1 + extra_width // 2,
        "time_embedding_dim": 4 * p.width if extra_width else None,
        "down_block_types": [DOWN_BLOCKS[has_attention] for has_attention in attention],
        "up_block_types": [UP_BLOCKS[has_attention] for has_attention in reversed(attention)],
        "block_out_channels": block_out_channels,
        "layers_per_block": p.blocks_per_level,
        "dropout": p.dropout,
        "attention_head_dim": p.head_channels,
        "norm_num_groups": p.norm_groups,
        "norm_eps": p.norm_eps,
        "num_class_embeds": None,
    }


def scheduler_config(diffusion: DiffusionParameters) -> Config:
    """Return the configuration of a ``DDPMScheduler`` that visits the timesteps of this project's samplers."""
    return SCHEDULER | {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": diffusion.num_timesteps,
        "beta_start": diffusion.beta_start,
        "beta_end": diffusion.beta_end,
        "beta_schedule": SCHEDULES[diffusion.schedule],
        "prediction_type": PREDICTION_TYPES[diffusion.target],
        "rescale_betas_zero_snr": diffusion.zero_terminal_snr,
        "timestep_spacing": "trailing",
        "variance_type": "fixed_small",
        "clip_sample": True,
        "steps_offset": 0,
    }


def model_parameters(unet: Config) -> ModelParameters:
    """Return the parameters of the U-Net that is equivalent to a ``UNet2DModel`` of this configuration.

    Raises:
        UserError: for values that the U-Net does not support, by key.
    """
    config, file = UNET_DEFAULTS | unet, "config.json of the U-Net"
    try:
        _UNetTypes.model_validate(config)
    except ValidationError as error:
        _refuse(file, config, {str(problem["loc"][0]): (False, problem["msg"].lower()) for problem in error.errors()})
    _refuse(file, config, _accepted(config, UNET) | _accepted_levels(config))
    first, *_ = channels = config["block_out_channels"]
    values = {
        "width": first,
        "channel_multipliers": [c // first for c in channels],
        "blocks_per_level": config["layers_per_block"],
        "attention_levels": [i for i, name in enumerate(config["down_block_types"]) if name == DOWN_BLOCKS[True]],
        "head_channels": config["attention_head_dim"],
        "norm_groups": config["norm_num_groups"],
        "norm_eps": config["norm_eps"],
        "dropout": config["dropout"],
        "patch_size": 1,
        "class_conditional": config["num_class_embeds"] is not None,
    }
    return _validate(ModelParameters, values, file)


def image_shape(unet: Config) -> tuple[int, int, int]:
    """Return the image shape (C, H, W) of a ``UNet2DModel``."""
    config = UNET_DEFAULTS | unet
    size = config["sample_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return config["in_channels"], height, width


def diffusion_parameters(scheduler: Config) -> DiffusionParameters:
    """Return the parameters that are equivalent to a scheduler of this configuration.

    Raises:
        UserError: for values that the schedules and targets do not support, by key.
    """
    config = SCHEDULER_DEFAULTS | scheduler
    schedules = {theirs: ours for ours, theirs in SCHEDULES.items()}
    targets = {theirs: ours for ours, theirs in PREDICTION_TYPES.items()}
    known = {"_class_name": SCHEDULERS, "beta_schedule": [*schedules], "prediction_type": [*targets]}
    accepted = {key: (config[key] in names, ", ".join(names)) for key, names in known.items()}
    _refuse("scheduler_config.json", config, accepted | _accepted(config, SCHEDULER))
    values = {
        "num_timesteps": config["num_train_timesteps"],
        "schedule": schedules[config["beta_schedule"]],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "target": targets[config["prediction_type"]],
        "zero_terminal_snr": config["rescale_betas_zero_snr"],
    }
    return _validate(DiffusionParameters, values, "scheduler_config.json")


def _accepted(config: Config, supported: Mapping[str, Any]) -> Accepted:
    return {key: (config[key] == value, _json(value)) for key, value in supported.items()}


def _accepted_levels(config: Config) -> Accepted:
    """Check the values that depend on each other: the U-Net's levels."""
    channels, down, up = (config[key] for key in ("block_out_channels", "down_block_types", "up_block_types"))
    first = channels[0] if channels else 0
    mirrored = [UP_BLOCKS[DOWN_BLOCKS.index(name)] for name in reversed(down) if name in DOWN_BLOCKS]
    size = config["sample_size"]
    return {
        "block_out_channels": (bool(first) and not any(c % first for c in channels), "multiples of the first one"),
        "time_embedding_dim": (config["time_embedding_dim"] in (None, 4 * first), f"null or {4 * first}"),
        "down_block_types": (len(mirrored) == len(down) == len(channels), f"{' or '.join(DOWN_BLOCKS)} for each level"),
        "up_block_types": (up == mirrored, f"{_json(mirrored)}, down_block_types mirrored"),
        "out_channels": (config["out_channels"] == config["in_channels"], f"{config['in_channels']}, as in_channels"),
        "sample_size": (bool(size) and (isinstance(size, int) or len(size) == 2), "a number, or [height, width]"),
    }


def _refuse(file: str, config: Config, accepted: Accepted) -> None:
    """Raise a UserError with one line per unsupported value."""
    wrong = [
        f"{key} = {_json(config[key])} in {file} is not supported. Supported: {supported}."
        for key, (is_accepted, supported) in accepted.items()
        if not is_accepted
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def _validate(group: type[G], values: Config, file: str) -> G:
    try:
        return group.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "values"
        raise UserError(
            f"The {file} is not supported: {where} = {_json(problem['input'])}: {problem['msg']}."
        ) from None


def _json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
