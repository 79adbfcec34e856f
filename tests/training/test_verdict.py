"""The verdict on a training."""

from collections import Counter
from collections.abc import Callable
from math import exp, nan

import numpy as np
import pytest

from ddpm_kedro.training.run import Row
from ddpm_kedro.training.verdict import training_seconds, training_verdict

LENGTH, IMAGES = 76_000, 4_500
CONSTANT = {"training": {"num_images": LENGTH}, "optimizer": {"lr_schedule": "constant"}}
COSINE = {"training": {"num_images": LENGTH}, "optimizer": {"lr_schedule": "cosine"}}
SHAPES: dict[str, Callable[[float], float]] = {
    "falls": lambda part: 0.1 + 0.02 / part,
    "level": lambda part: 0.1 + 0.3 * exp(-20 * part),
    "rises": lambda part: 0.1 + 0.3 * exp(-10 * part) + 0.08 * max(0.0, part - 0.5),
}


def history(shape: str, rows: int = 20, noise: float = 0.0, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    parts = [(row + 1) / rows for row in range(rows)]
    return [
        {
            "images_seen": LENGTH * part,
            "validation_loss": SHAPES[shape](part) * (1 + noise * rng.normal()),
            "images_per_second": 760.0,
        }
        for part in parts
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [8, 10, 20, 1000])
def test_the_trend_of_a_smooth_loss_is_found(shape: str, rows: int) -> None:
    assert training_verdict(history(shape, rows), CONSTANT, IMAGES).trend == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_of_half_a_percent_hides_no_trend(shape: str) -> None:
    found = Counter(
        training_verdict(history(shape, noise=0.005, seed=seed), CONSTANT, IMAGES).trend for seed in range(50)
    )
    assert found[shape] >= 45


def test_noise_of_ten_percent_is_no_trend() -> None:
    found = Counter(
        training_verdict(history("level", noise=0.1, seed=seed), CONSTANT, IMAGES).trend for seed in range(50)
    )
    assert found["level"] >= 45


def test_a_fall_of_less_than_a_percent_is_none() -> None:
    rows = [{"images_seen": 8.0 * row, "validation_loss": 1 - 1e-4 * row} for row in range(1, 21)]
    assert training_verdict(rows, {}, 40).trend == "level"


def test_with_a_constant_learning_rate_a_longer_training_resumes() -> None:
    verdict = training_verdict(history("falls"), CONSTANT, IMAGES)
    assert verdict.short == "17 passes over 4,500 images; the loss was still falling."
    assert verdict.sentences == [
        "17 passes over 4,500 training images.",
        "The validation loss was still falling: 0.1400 at 38,000 images, now 0.1200.",
        "A longer training can lower it further; it resumes from the last checkpoint.",
        "To train longer, add --params training.num_images=152_000 (about 0:01:40 more).",
    ]


def test_with_the_cosine_schedule_the_loss_always_falls_at_the_end() -> None:
    verdict = training_verdict(history("falls"), COSINE, IMAGES)
    assert verdict.outlook == (
        "With the cosine schedule the loss falls at the end of every training, because the learning rate falls; a "
        "longer training usually ends lower. It resumes with a higher learning rate, or with training.resume=never it "
        "starts from scratch."
    )
    assert "--params training.num_images=152_000" in verdict.command


def test_a_rising_loss_names_the_lowest_one_and_the_best_checkpoint() -> None:
    verdict = training_verdict(history("rises"), CONSTANT, IMAGES)
    assert "lowest at 38,000 images (0.1020) and has risen to 0.1400" in verdict.evidence
    assert "memorises" in verdict.evidence
    assert verdict.command.endswith("add --params training.export=best.")
    assert "num_images" not in verdict.command


def test_a_level_loss_promises_nothing() -> None:
    verdict = training_verdict(history("level"), CONSTANT, IMAGES)
    assert verdict.evidence == "The validation loss has levelled off at 0.1000."
    assert verdict.command == ""
    assert "a larger network" in verdict.outlook


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_short_history_is_not_judged(rows: int) -> None:
    verdict = training_verdict(history("falls")[:rows], CONSTANT, IMAGES)
    assert verdict.trend == "unknown"
    assert verdict.short.endswith("too few rows to judge.")
    assert f"At least 8 rows of the history are needed to judge the validation loss, not {rows}" in verdict.evidence
    assert verdict.command == ""


@pytest.mark.parametrize("value", [nan, None])
def test_rows_without_a_validation_loss_are_ignored(value: float | None) -> None:
    rows = history("falls", 14)
    for row in rows[::2]:
        row["validation_loss"] = nan
        if value is None:
            del row["validation_loss"]
    assert training_verdict(rows, CONSTANT, IMAGES).trend == "unknown"


def test_a_history_without_speed_gives_no_duration() -> None:
    rows = [{name: value for name, value in row.items() if name != "images_per_second"} for row in history("falls")]
    assert "training.num_images=152_000." in training_verdict(rows, CONSTANT, IMAGES).command


def test_the_duration_of_a_training_follows_from_its_rows() -> None:
    rows = [{"images_seen": 100.0, "images_per_second": 50.0}, {"images_seen": 300.0, "images_per_second": 20.0}]
    assert training_seconds(rows) == 12.0
    assert training_seconds([]) == 0.0
