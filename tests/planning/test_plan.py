"""The arithmetic of a plan."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Parameters, check_parameters
from ddpm_kedro.planning.expectation import expect
from ddpm_kedro.planning.plan import make_plan, other_sizes
from ddpm_kedro.planning.rounding import duration, two_digits
from ddpm_kedro.planning.sizing import EXTRACTOR_SHARE, choose_size, extractor_images, training_seconds
from ddpm_kedro.planning.table import plain_table
from ddpm_kedro.provenance import flatten
from tests.planning.conftest import MakeTask
from tests.planning.devices import CPU, GPU

MINUTES = (2, 5, 10, 30, 60, 240, 1440, 4320)
pytestmark = pytest.mark.usefixtures("estimated_costs")


@pytest.mark.parametrize(
    ("number", "rounded"), [(0, 0), (7.9, 7), (99.9, 99), (100, 100), (129, 120), (61_789, 61_000), (1e6, 1_000_000)]
)
def test_two_digits_are_kept(number: float, rounded: int) -> None:
    assert two_digits(number) == rounded


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (600, "10min"), (5400, "1h 30min"), (90_000, "1d 1h")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("minutes", MINUTES)
def test_training_and_evaluation_end_within_the_budget(minutes: int, profile: Any, make_task: MakeTask) -> None:
    task = make_task(profile=profile, seconds=60 * minutes)
    plan, sizing = make_plan(task), choose_size(task)
    training, evaluation = plan.parameters["training"], plan.parameters["evaluation"]
    samples = task.parameters.sampling
    p = task.parameters.training
    reports = -(-training["num_images"] // training["report_interval"])
    forward = samples.num_images * samples.num_inference_steps * 2 + reports * (
        p.preview_images * p.preview_steps * 2 + p.validation_images
    )
    seconds = (training["num_images"] + forward / 3) / sizing.images_per_second
    fitting = evaluation["fit_images"] / extractor_images(task, 1.0)
    assert fitting <= EXTRACTOR_SHARE * training_seconds(task) * 1.01
    assert 0.8 * training_seconds(task) < seconds <= training_seconds(task)
    assert seconds + fitting < task.seconds


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_more_time_gives_no_smaller_network_and_no_less_training(side: int, profile: Any, make_task: MakeTask) -> None:
    sizings = [choose_size(make_task(side=side, profile=profile, seconds=60 * minutes)) for minutes in MINUTES]
    flops = [sizing.cost.flops for sizing in sizings]
    totals = [sizing.cost.flops * sizing.images for sizing in sizings]
    assert flops == sorted(flops)
    assert len(set(flops)) > 2
    assert all(later > earlier for earlier, later in pairwise(totals))


def test_networks_use_patches_only_where_the_time_is_short(make_task: MakeTask) -> None:
    assert choose_size(make_task()).model.patch_size == 1
    assert choose_size(make_task(side=128)).model.patch_size > 1
    assert choose_size(make_task(side=128, seconds=86_400 * 3)).model.patch_size == 1
    assert choose_size(make_task(side=128, profile=GPU, seconds=7200)).model.patch_size == 1


def test_a_network_that_sees_too_few_images_is_named_in_the_table(make_task: MakeTask) -> None:
    plan = make_plan(make_task(side=256, seconds=300))
    assert plan.parameters["model"]["patch_size"] == 4
    assert plan.parameters["model"]["width"] == 16
    assert "the fastest: this time is short for such images" in {why for *_, why in plan.table}


def test_a_batch_is_divided_until_it_fits_the_memory(make_task: MakeTask) -> None:
    task = make_task(profile=GPU.with_memory(10**12), seconds=7200)
    whole = choose_size(task)
    assert (whole.accumulation_steps, whole.activation_checkpointing) == (1, False)
    parted = choose_size(replace(task, profile=GPU.with_memory(int(whole.memory / 2))))
    assert parted.accumulation_steps > 1
    assert parted.memory <= whole.memory / 2
    assert parted.batch_size == whole.batch_size


def test_activations_are_recomputed_if_not_one_image_fits_otherwise(make_task: MakeTask) -> None:
    one = choose_size(make_task(model__width=64, training__batch_size=1))
    sizing = choose_size(make_task(model__width=64, training__batch_size=1, profile=CPU.with_memory(one.memory)))
    assert sizing.activation_checkpointing
    assert sizing.images_per_second == pytest.approx(0.75 * one.images_per_second)


def test_images_that_fit_no_memory_are_an_error(make_task: MakeTask) -> None:
    with pytest.raises(
        UserError, match=r"64×64 pixels are too large for two cores with 0.0 GB: .* smaller images.size"
    ):
        make_plan(make_task(side=64, profile=CPU.with_memory(1_000_000)))


@pytest.mark.parametrize("side", [32, 256])
def test_a_budget_too_short_for_a_report_is_an_error_with_one_that_suffices(side: int, make_task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"plan.time_budget = 12s is too short .* Give at least") as error:
        make_plan(make_task(side=side, seconds=12))
    minutes = int(str(error.value).partition("plan.time_budget=")[2].partition("min")[0])
    make_plan(make_task(side=side, seconds=60 * minutes))
    assert (
        make_plan(make_task(side=side, seconds=12, training__num_images=64)).parameters["training"]["num_images"] == 64
    )


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_few_images_get_a_plan_that_can_run(count: int, make_task: MakeTask) -> None:
    plan = make_plan(make_task(count=count, classes=0))
    assert 1 <= plan.parameters["training"]["batch_size"] <= count
    assert plan.parameters["model"]["dropout"] > 0
    assert any("most samples will be copies" in why for *_, why in plan.table)


@pytest.mark.parametrize(("classes", "conditional"), [(0, False), (1, False), (2, True)])
def test_one_class_is_no_condition(classes: int, conditional: bool, make_task: MakeTask) -> None:
    assert make_plan(make_task(classes=classes)).parameters["model"]["class_conditional"] is conditional


def test_grey_images_are_not_flipped(make_task: MakeTask) -> None:
    flips = [
        make_plan(make_task(channels=channels)).parameters["augmentation"]["horizontal_flip"] for channels in (1, 3, 4)
    ]
    assert flips == [False, True, True]


def test_many_passes_over_a_small_set_get_dropout_and_augmentation(make_task: MakeTask) -> None:
    few, many = (make_plan(make_task(count=count)).parameters for count in (500, 45_000))
    assert (few["model"]["dropout"], many["model"]["dropout"]) == (0.1, 0.0)
    assert few["augmentation"]["non_leaking"] > 0 == many["augmentation"]["non_leaking"]


OTHER: dict[str, Any] = {
    "model.width": 40,
    "model.channel_multipliers": [1, 3],
    "model.attention_levels": [0],
    "model.norm_groups": 4,
    "model.patch_size": 2,
    "model.class_conditional": False,
    "augmentation.horizontal_flip": False,
    "training.batch_size": 24,
}
"""Values that differ from what is planned; other numbers are doubled, and others are kept."""


def test_each_given_value_replaces_the_planned_one(make_task: MakeTask) -> None:
    planned = dict(flatten(make_plan(make_task()).parameters))
    assert set(OTHER) < set(planned)
    for name, value in planned.items():
        doubled = value * 2 if isinstance(value, int | float) and not isinstance(value, bool) else value
        given = OTHER.get(name, doubled)
        plan = make_plan(make_task(**{name.replace(".", "__"): given}))
        assert dict(flatten(plan.parameters))[name] == given, name
        if name in {"model.width", "training.batch_size", "optimizer.lr", "evaluation.fit_images", "model.dropout"}:
            assert any("as given" in why and name in why for *_, why in plan.table), name


def test_a_given_length_wins_over_the_budget_and_the_table_says_so(make_task: MakeTask) -> None:
    plan = make_plan(make_task(training__num_images=500))
    assert plan.parameters["training"]["num_images"] == 500
    assert any("training.num_images is given: plan.time_budget does not count" in why for *_, why in plan.table)


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("side", [8, 16, 28, 33, 64, 256])
def test_every_plan_is_accepted_and_fits_80_columns(
    side: int, profile: Any, make_task: MakeTask, parameters: Parameters
) -> None:
    plan = make_plan(make_task(side=side, profile=profile, count=300), sizes=(64, 128))
    plain = parameters.model_dump(mode="json")
    check_parameters({**plain, **{name: {**plain[name], **values} for name, values in plan.parameters.items()}})
    lines = plain_table(plan.table)
    assert max(map(len, lines)) <= 80
    assert len(lines) < 45


def test_equal_devices_get_equal_plans_in_spite_of_noise(make_task: MakeTask) -> None:
    noisy = replace(CPU, timings=tuple(replace(each, seconds=each.seconds * 1.0005) for each in CPU.timings))
    assert make_plan(make_task()).parameters == make_plan(make_task(profile=noisy)).parameters


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([[400, 533, 3, 10]], [128, 256]),
        ([[100, 90, 3, 10]], []),
        ([[400, 400, 3, 3], [140, 200, 3, 7]], [128]),
        ([], []),
    ],
)
def test_other_sizes_are_those_that_half_of_the_images_have(sizes: list[list[int]], expected: list[int]) -> None:
    assert other_sizes(sizes, (3, 64, 64)) == expected


def test_expectations_rise_with_the_images_seen_and_warn_of_copies() -> None:
    shape = (3, 32, 32)
    sentences = [expect(seen, shape, 50_000) for seen in (30_000, 400_000, 3_000_000, 50_000_000)]
    assert len(set(sentences)) == 4
    assert "no objects" in sentences[0]
    assert "copies" in expect(3_000_000, shape, 600)
    assert "larger images need more" in expect(30_000, (3, 64, 64), 50_000)
    assert expect(76_000, (1, 28, 28), 4_500) == "Clear simple shapes."
