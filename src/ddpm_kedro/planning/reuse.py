"""When a stored plan is used again. Without torch, so that ingestion starts quickly."""

import logging
from collections.abc import Mapping
from typing import Any

from ddpm_kedro.parameters import PlanParameters
from ddpm_kedro.parameters.plan import seconds_of
from ddpm_kedro.provenance import flatten

logger = logging.getLogger(__name__)


def why_new_plan(stored: Mapping[str, Any], same_images: bool, plan: PlanParameters, device: str) -> str | None:
    """Return why a new plan is needed; None if the stored one is used.

    Args:
        stored: stored parameters and their plan; empty if nothing is stored.
        same_images: whether the stored parameters are for these images.
        plan: parameters of this run.
        device: kind of the device of this run.
    """
    if not stored or not stored["parameters"]:
        return "these images have no plan yet"
    made = stored["plan"]
    earlier = stored["parameters"].get("plan", {}).get("time_budget", plan.time_budget)
    reasons = {
        "plan.renew is true": plan.renew,
        "the stored plan is for other images": not same_images,
        f"plan.time_budget was {earlier}": seconds_of(earlier) != plan.seconds,
        f"the stored plan is for {made and made['device']}": made and made["device"] != device and not made["in_use"],
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is None and made is None:
        logger.info("The parameters were stored by an earlier version; plan.renew=true makes a plan.")
    elif reason is None and made["device"] != device:
        logger.warning(
            "The plan of this training was made for %s; this device is %s. The plan stays, so that the training can "
            "resume: plan.renew=true makes another.",
            made["device"],
            device,
        )
    return reason


def log_replaced(stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Log which values of a stored plan this run replaces."""
    planned = dict(flatten(stored))
    for name, value in given.items():
        if name in planned and planned[name] != value and not name.startswith(("use.", "dataset.", "images.")):
            logger.info(
                "%s = %s replaces the %s of the plan, whose other values stay (plan.renew=true plans with it).",
                name,
                value,
                planned[name],
            )
