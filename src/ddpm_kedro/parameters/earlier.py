"""Parameters of earlier versions: what replaced them, and the conversion of stored ones."""

import math
from collections.abc import Mapping
from typing import Any

RAMPUP_RATIO = 0.05


def half_life(decay: float, batch_size: int) -> float:
    """Return the half-life in images, to three digits, of an EMA with this decay per step; a decay is in [0, 1)."""
    images = batch_size * math.log(0.5) / math.log(decay) if decay > 0 else 1.0
    return float(f"{max(images, 1.0):.3g}")


def explain_ema_decay(training: Mapping[str, Any]) -> str:
    """Return which parameter replaced ``training.ema_decay``, and its value if the given one is a decay."""
    decay, batch_size = training["ema_decay"], training.get("batch_size")
    replaced = "Parameter 'training.ema_decay' was replaced by training.ema_half_life, a number of images"
    if not (isinstance(decay, int | float) and isinstance(batch_size, int) and 0 <= decay < 1 <= batch_size):
        return replaced
    value = f"training.ema_half_life={half_life(decay, batch_size):.0f}"
    return f"{replaced}: instead of a decay of {decay} per step of {batch_size} images, use {value}"


def convert_stored(parameters: dict[str, Any]) -> dict[str, Any]:
    """Convert parameters by group, stored by this or an earlier version, to this version."""
    converted = {group: dict(values) if isinstance(values, dict) else values for group, values in parameters.items()}
    training = converted.get("training", {})
    if "ema_decay" in training:
        training["ema_half_life"] = half_life(training.pop("ema_decay"), training["batch_size"])
        training["ema_rampup_ratio"] = RAMPUP_RATIO
    if "augmentation" in converted:
        converted["augmentation"].setdefault("non_leaking", 0.0)
    return converted
