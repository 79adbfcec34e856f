"""The parameter group of the plan: how long a training on your own images may take."""

import re
from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat

from ddpm_kedro.parameters.base import Group, NotInFingerprint, Text

SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:d|h|min|m|s)\s*)+")


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``10min``, ``2h``, ``3d`` or ``1h30min``.

    Raises:
        ValueError: for text that is no duration, or no time at all.
    """
    text = duration.strip().lower()
    parts = re.findall(r"([\d.]+)\s*(d|h|min|m|s)", text) if _DURATION.fullmatch(text) else []
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if not seconds:
        raise ValueError(f"{duration!r} is no duration; write 90s, 10min, 2h, 3d or 1h30min")
    return seconds


def _check(duration: str) -> str:
    seconds_of(duration)
    return duration


class PlanParameters(Group):
    """The plan of a training on your own images; see ``ddpm_kedro.planning``."""

    time_budget: Annotated[Text, AfterValidator(_check)]
    """Time for training, sampling, evaluation and report, such as 90s, 10min, 2h, 3d or 1h30min."""
    renew: NotInFingerprint[bool]
    """Make a new plan, even if there is one for these images, this time and this device."""
    timing_seconds: NotInFingerprint[NonNegativeFloat]
    """Maximum time to measure the speed of the device, once; 0 times only the smallest network."""

    @property
    def seconds(self) -> float:
        """Return the time budget in seconds."""
        return seconds_of(self.time_budget)
