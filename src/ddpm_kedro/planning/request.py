"""What a plan starts from, besides images and device. Without torch, so that ingestion starts quickly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PlanRequest:
    """The parameters of this run, and the plan that an earlier run stored.

    Attributes:
        parameters: all parameters, as plain data.
        given: the parameters that the command line, the environment or a chosen option sets, by their full names.
        stored: what is stored for your own images; empty if nothing is.
        may_plan: whether this run may make a plan; the trials of a sweep use the stored one.
    """

    parameters: Mapping[str, Any]
    given: Mapping[str, Any]
    stored: Mapping[str, Any]
    may_plan: bool = True
