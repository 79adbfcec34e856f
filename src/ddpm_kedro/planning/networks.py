"""The networks that a plan chooses from."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import ModelParameters

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)
PATCHES = (1, 2, 4)
"""Sides of the patches; patches of 1 come first, since only these can be exported to diffusers."""
DEEP = 64  # from this width on, two blocks per level as in Ho et al. (2020); below, one
NORM_GROUPS = (32, 8, 4, 2, 1)  # the largest that divides the width into groups of two channels or more
BOTTOM, ATTENTION = 8, 16  # pixels: sides of the coarsest level, at most, and of the levels with attention
MULTIPLIERS = {1: (1,), 2: (1, 2), 3: (1, 2, 2), 4: (1, 2, 3, 4), 5: (1, 1, 2, 3, 4), 6: (1, 1, 2, 2, 4, 4)}
"""Channels by the number of levels: Ho et al. (2020) for 32×32, Dhariwal and Nichol (2021) for larger images."""


def networks(image_shape: tuple[int, int, int], patch: int, given: Mapping[str, Any]) -> list[ModelParameters]:
    """Return the U-Nets for images (C, H, W) with patches of this size, in the order of their cost.

    Args:
        image_shape: (C, H, W).
        patch: side of the patches in pixels.
        given: parameters of the model that replace the networks' own.

    Raises:
        UserError: if the given parameters fit no network.
    """
    sides = [-(-max(image_shape[1:]) // patch)]
    while sides[-1] > BOTTOM and len(sides) < max(MULTIPLIERS):
        sides.append(-(-sides[-1] // 2))
    widths = (given["width"],) if "width" in given else WIDTHS
    try:
        found = [ModelParameters.model_validate(_network(width, sides, patch) | dict(given)) for width in widths]
    except ValidationError as error:
        reason = error.errors()[0].get("ctx", {}).get("error", error)
        raise UserError(f"The given parameters of the model fit no network for these images: {reason}.") from error
    return list(dict.fromkeys(found))


def _network(width: int, sides: list[int], patch: int) -> dict[str, Any]:
    return {
        "width": width,
        "channel_multipliers": MULTIPLIERS[len(sides)],
        "blocks_per_level": 2 if width >= DEEP else 1,
        "attention_levels": tuple(level for level, side in enumerate(sides) if BOTTOM < side <= ATTENTION),
        "head_channels": None,
        "norm_groups": next(groups for groups in NORM_GROUPS if width % groups == 0 and width >= 2 * groups),
        "norm_eps": 1e-5,
        "dropout": 0.0,
        "patch_size": patch,
        "class_conditional": True,
    }
