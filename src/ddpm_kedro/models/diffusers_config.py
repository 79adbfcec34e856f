"""Configurations of diffusers' ``UNet2DModel`` and schedulers, and the parameters that mean the same."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import DiffusionParameters, Group, ModelParameters

Config = dict[str, Any]
Accepted = dict[str, tuple[bool, str]]  # by key: whether it is, and what would be
G = TypeVar("G", bound=Group)

SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}
"""``diffusion.schedule``, and diffusers' ``beta_schedule``."""
PREDICTION_TYPES = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
"""``diffusion.target``, and diffusers' ``prediction_type``."""
SCHEDULERS = [
    "DDPMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
"""All of them mean the same noise by the same betas; how they draw is no property of the model."""
DOWN_BLOCKS, UP_BLOCKS = ["DownBlock2D", "AttnDownBlock2D"], ["UpBlock2D", "AttnUpBlock2D"]  # without attention, with
LONGEST = 200  # characters of a value in an error
VERSION = "0.36.0"  # of diffusers: what is written is for this one and all later ones

# What the U-Net is like, whatever its parameters; other values are not supported.
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
# diffusers' own defaults: what a configuration means that leaves a key out.
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
SCHEDULER: Config = {
    "trained_betas": None,
    "thresholding": False,
    "clip_sample_range": 1.0,
}
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
    """The types of the values that :func:`model_parameters` computes with."""

    model_config = ConfigDict(strict=True)

    block_out_channels: list[PositiveInt]
    down_block_types: list[str]
    up_block_types: list[str]
    layers_per_block: PositiveInt
    in_channels: PositiveInt
    sample_size: PositiveInt | list[PositiveInt] | None
    num_class_embeds: PositiveInt | None


def unet_config(p: ModelParameters, image_shape: tuple[int, int, int]) -> Config:
    """Of the ``UNet2DModel`` that is a U-Net without classes, for images (C, H, W).

    diffusers' sinusoid is as wide as the first level, ours as ``model.width``: with this ``freq_shift`` its first
    frequencies are ours. The other ones must weigh nothing.
    """
    channels, height, width = image_shape
    block_out_channels = [p.width * m for m in p.channel_multipliers]
    attention = [level in p.attention_levels for level in range(len(block_out_channels))]
    wider = block_out_channels[0] - p.width
    return UNET | {
        "_diffusers_version": VERSION,
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "freq_shift": 1 + wider // 2,
        "time_embedding_dim": 4 * p.width if wider else None,
        "down_block_types": [DOWN_BLOCKS[there] for there in attention],
        "up_block_types": [UP_BLOCKS[there] for there in reversed(attention)],
        "block_out_channels": block_out_channels,
        "layers_per_block": p.blocks_per_level,
        "dropout": p.dropout,
        "attention_head_dim": p.head_channels,
        "norm_num_groups": p.norm_groups,
        "norm_eps": p.norm_eps,
        "num_class_embeds": None,
    }


def scheduler_config(diffusion: DiffusionParameters) -> Config:
    """Of a ``DDPMScheduler`` that visits the timesteps that this project's samplers visit."""
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


def model_parameters(found: Config) -> ModelParameters:
    """Those of the U-Net that a ``UNet2DModel`` of this configuration is.

    Raises:
        UserError: for what the U-Net does not support, by its key.
    """
    config, file = UNET_DEFAULTS | found, "config.json of the U-Net"
    _refuse(file, config, _accepted_types(config))
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
    return _built(ModelParameters, values, "config.json of the U-Net")


def image_shape(found: Config) -> tuple[int, int, int]:
    """(C, H, W) of the images that a ``UNet2DModel`` is for."""
    config = UNET_DEFAULTS | found
    size = config["sample_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return config["in_channels"], height, width


def diffusion_parameters(found: Config) -> DiffusionParameters:
    """Those that a scheduler of this configuration trains with.

    Raises:
        UserError: for what the schedules and targets do not support, by its key.
    """
    config = SCHEDULER_DEFAULTS | found
    schedules = {theirs: ours for ours, theirs in SCHEDULES.items()}
    targets = {theirs: ours for ours, theirs in PREDICTION_TYPES.items()}
    known: dict[str, Iterable[str]] = {
        "_class_name": SCHEDULERS,
        "beta_schedule": schedules,
        "prediction_type": targets,
    }
    named = {key: (config[key] in list(names), ", ".join(names)) for key, names in known.items()}
    _refuse("scheduler_config.json", config, named | _accepted(config, SCHEDULER))
    values = {
        "num_timesteps": config["num_train_timesteps"],
        "schedule": schedules[config["beta_schedule"]],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "target": targets[config["prediction_type"]],
        "zero_terminal_snr": config["rescale_betas_zero_snr"],
    }
    return _built(DiffusionParameters, values, "scheduler_config.json")


def _accepted(config: Config, supported: Mapping[str, Any]) -> Accepted:
    return {key: (config[key] == value, _json(value)) for key, value in supported.items()}


def _accepted_types(config: Config) -> Accepted:
    try:
        _UNetTypes.model_validate(config)
    except ValidationError as error:
        return {str(problem["loc"][0]): (False, problem["msg"].lower()) for problem in error.errors()}
    return {}


def _accepted_levels(config: Config) -> Accepted:
    """What the levels of our U-Net have in common."""
    channels, down, up = (config[key] for key in ("block_out_channels", "down_block_types", "up_block_types"))
    first = channels[0] if channels else 0
    mirrored = [UP_BLOCKS[DOWN_BLOCKS.index(name)] for name in reversed(down) if name in DOWN_BLOCKS]
    size = config["sample_size"]
    return {
        "block_out_channels": (bool(first) and not any(c % first for c in channels), "multiples of the first one"),
        "time_embedding_dim": (config["time_embedding_dim"] in (None, 4 * first), f"null or {4 * first}"),
        "down_block_types": (len(mirrored) == len(down) == len(channels), f"{' or '.join(DOWN_BLOCKS)} for each level"),
        "up_block_types": (up == mirrored, f"{_json(mirrored)}, the way down mirrored"),
        "out_channels": (config["out_channels"] == config["in_channels"], f"{config['in_channels']}, as in_channels"),
        "sample_size": (bool(size) and (isinstance(size, int) or len(size) == 2), "a number, or [height, width]"),
    }


def _refuse(file: str, config: Config, accepted: Accepted) -> None:
    """One line for each value that is not supported."""
    wrong = [
        f"{key} = {_json(config[key])} in {file} is not supported. Supported: {meant}."
        for key, (good, meant) in accepted.items()
        if not good
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def _built(group: type[G], values: Config, file: str) -> G:
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
