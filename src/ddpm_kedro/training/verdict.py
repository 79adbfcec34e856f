"""A verdict in words on a finished training: passes over the data, the trend of the validation loss, what to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.progress import passes
from ddpm_kedro.training.run import Row

Trend = Literal["falls", "rises", "level", "unknown"]
LEAST_ROWS = 8  # of the history; the last half of them is judged
LEAST_POINTS = 4  # for a line and its error
SMALL = 0.01  # a change by less than this fraction of the loss counts as none
SIGNIFICANT = 3.0  # standard errors
WORDS: dict[Trend, str] = {
    "falls": "the loss was still falling",
    "rises": "the loss was rising",
    "level": "the loss has levelled off",
    "unknown": "too few rows to judge",
}


@dataclass(frozen=True)
class TrainingVerdict:
    """A verdict on a training, in sentences.

    Attributes:
        trend: trend of the validation loss in the last half of the training.
        length: images seen, and passes over the training images.
        evidence: the validation losses behind the trend.
        outlook: what a longer training may bring; may be empty.
        command: how to continue; may be empty.
    """

    trend: Trend
    length: str
    evidence: str
    outlook: str = ""
    command: str = ""

    @property
    def short(self) -> str:
        """Return length and trend in one sentence."""
        return f"{self.length.replace(' training', '')}; {WORDS[self.trend]}."

    @property
    def sentences(self) -> list[str]:
        """Return all sentences that are not empty."""
        return [each for each in (f"{self.length}.", self.evidence, self.outlook, self.command) if each]


def training_verdict(history: Sequence[Row], parameters: Mapping[str, Any], training_images: int) -> TrainingVerdict:
    """Judge a training by its history.

    The test is simple: a straight line is fitted to the validation loss in the last half of the images seen. The loss
    falls or rises if the line changes by more than 1 % of the loss and by more than three of its standard errors,
    which follow from the scatter around it. It also rises if the same holds for the rows after the lowest one.

    Args:
        history: rows of the training, the oldest first; rows without a finite validation loss are ignored.
        parameters: parameters of the run by group, as plain data; an imported model may have none.
        training_images: number of different training images.
    """
    rows = [row for row in history if math.isfinite(row.get("validation_loss", math.nan))]
    seen = int(history[-1]["images_seen"]) if history else 0
    length = f"{passes(seen, training_images)} over {training_images:,} training images"
    match _trend(rows):
        case "falls":
            return TrainingVerdict("falls", length, _fall(rows), *_longer(rows, parameters))
        case "rises":
            return TrainingVerdict("rises", length, *_rise(rows))
        case "level":
            return TrainingVerdict("level", length, *_level(rows))
    too_short = f"At least {LEAST_ROWS} rows of the history are needed to judge the validation loss, not {len(rows)}"
    return TrainingVerdict("unknown", length, f"{too_short} (training.report_interval).")


def training_seconds(history: Sequence[Row]) -> float:
    """Return the seconds that the rows of a history took, from their images per second; without interruptions."""
    seconds, before = 0.0, 0.0
    for row in history:
        if row.get("images_per_second", 0.0) > 0:
            seconds += (row["images_seen"] - before) / row["images_per_second"]
        before = row["images_seen"]
    return seconds


def _trend(rows: Sequence[Row]) -> Trend:
    if len(rows) < LEAST_ROWS:
        return "unknown"
    seen = np.array([row["images_seen"] for row in rows])
    loss = np.array([row["validation_loss"] for row in rows])
    half = min(int(np.searchsorted(seen, seen[-1] / 2)), len(rows) - LEAST_POINTS)
    after = int(loss.argmin()) + 1  # without the lowest row, after which chance alone makes the loss rise
    if _change(seen[half:], loss[half:]) > 0 or _change(seen[after:], loss[after:]) > 0:
        return "rises"
    return "falls" if _change(seen[half:], loss[half:]) < 0 else "level"


def _change(seen: NDArray[np.float64], loss: NDArray[np.float64]) -> float:
    """Return the change of a line fitted to the loss, from the first to the last point; 0 if it is small or chance."""
    if len(seen) < LEAST_POINTS or seen[-1] == seen[0]:
        return 0.0
    x = (seen - seen.mean()) / (seen[-1] - seen[0])
    change = float((x * loss).sum() / (x * x).sum())
    scatter = loss - loss.mean() - change * x
    error = math.sqrt(float((scatter**2).sum()) / (len(seen) - 2) / float((x * x).sum()))
    matters = abs(change) > SMALL * abs(loss.mean()) and abs(change) > SIGNIFICANT * error
    return change if matters else 0.0


def _fall(rows: Sequence[Row]) -> str:
    before = next((row for row in reversed(rows) if row["images_seen"] <= rows[-1]["images_seen"] / 2), rows[0])
    old, new = before["validation_loss"], rows[-1]["validation_loss"]
    return f"The validation loss was still falling: {old:.4f} at {before['images_seen']:,.0f} images, now {new:.4f}."


def _longer(rows: Sequence[Row], parameters: Mapping[str, Any]) -> tuple[str, str]:
    """Return what twice the length brings, and how to train it."""
    num_images = parameters.get("training", {}).get("num_images", int(rows[-1]["images_seen"]))
    lr_schedule = parameters.get("optimizer", {}).get("lr_schedule", "constant")
    rate = float(np.median([row.get("images_per_second", 0.0) for row in rows]))
    duration = f" (about {timedelta(seconds=round(num_images / rate))} more)" if rate > 0 else ""
    command = f"To train longer, add --params training.num_images={2 * num_images:_}{duration}."
    if lr_schedule == "constant":
        return "A longer training can lower it further; it resumes from the last checkpoint.", command
    outlook = (
        f"With the {lr_schedule} schedule the loss falls at the end of every training, because the learning rate "
        "falls; a longer training usually ends lower. It resumes with a higher learning rate, or with "
        "training.resume=never it starts from scratch."
    )
    return outlook, command


def _rise(rows: Sequence[Row]) -> tuple[str, str, str]:
    lowest = min(rows, key=lambda row: row["validation_loss"])
    return (
        f"The validation loss was lowest at {lowest['images_seen']:,.0f} images ({lowest['validation_loss']:.4f}) and "
        f"has risen to {rows[-1]['validation_loss']:.4f}: usually the model memorises its training images.",
        "A longer training does not help; more images, augmentation or model.dropout may.",
        "To export the checkpoint with the lowest loss, add --params training.export=best.",
    )


def _level(rows: Sequence[Row]) -> tuple[str, str]:
    return (
        f"The validation loss has levelled off at {rows[-1]['validation_loss']:.4f}.",
        "A longer training hardly lowers it, but may still improve the samples; a larger network (model.width) may "
        "lower it.",
    )
