"""The cost of a network, and the speed that follows from it."""

import pytest
import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.models import build_network
from ddpm_kedro.planning.cost import Cost, unet_cost
from ddpm_kedro.planning.measurement import measure_profile
from ddpm_kedro.planning.networks import networks
from ddpm_kedro.planning.profile import DeviceProfile, Timing
from tests.conftest import MODEL, changed
from tests.planning.devices import CPU, GPU, NETWORKS


def test_the_cost_of_a_known_network_is_the_published_one() -> None:
    ho2020 = changed(
        MODEL, width=128, channel_multipliers=(1, 2, 2, 2), blocks_per_level=2, norm_groups=32, class_conditional=False
    )
    cost = unet_cost(ho2020, (3, 32, 32), 10)
    assert (cost.parameters, round(cost.flops / 1e9, 2)) == (35_746_307, 37.32)  # docs/benchmarks.md
    assert unet_cost(changed(ho2020, class_conditional=True), (3, 32, 32), 10).parameters == 35_746_307 + 11 * 512


def test_larger_images_cost_more_values_and_no_more_operations() -> None:
    small, large = (unet_cost(MODEL, (3, side, side), 0) for side in (16, 32))
    assert large.operations == small.operations
    assert 3 < large.elements / small.elements < 8  # attention grows faster


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_fit_finds_the_speed_of_a_device(profile: DeviceProfile) -> None:
    rate = {"cpu": (2e-5, 5e-10, 1 / 120e9), "cuda": (2e-5, 4e-12, 1 / 150e12)}[profile.device]
    assert profile.coefficients == pytest.approx(rate, rel=1e-3)
    flops, values, operations, batch = NETWORKS[1]
    expected = rate[0] * operations + batch * (rate[1] * values + rate[2] * flops)
    assert profile.seconds_per_step(Cost(flops, values, operations, 0), batch) == pytest.approx(expected)


def test_one_timing_gives_a_rate() -> None:
    [first, *_] = CPU.timings
    profile = DeviceProfile("", "cpu", "fp32", 1, (first,))
    assert profile.images_per_second(Cost(2 * first.flops, 0, 0, 0), 7) == pytest.approx(
        first.batch / first.seconds / 2
    )
    given = DeviceProfile.of_rate("", "cuda", 1, 1e12)
    assert given.images_per_second(Cost(1e9, 1e6, 100, 0), 32) == pytest.approx(1000)


def test_a_profile_is_restored_from_plain_data() -> None:
    assert DeviceProfile.from_dict(CPU.as_dict()) == CPU


def test_the_device_is_timed_without_a_change_of_random_numbers(device: torch.device) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    profile = measure_profile("kind", device.type, "fp32", 0)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(3), expected)
    [timing] = [timing for timing in profile.timings if timing.seconds > 0]
    assert isinstance(timing, Timing)
    assert (profile.kind, profile.device, profile.precision) == ("kind", device.type, "fp32")
    assert profile.memory > 1e8


@pytest.mark.parametrize(
    ("side", "patch", "levels"), [(8, 1, 1), (16, 1, 2), (32, 1, 3), (28, 1, 3), (128, 2, 4), (256, 1, 6)]
)
def test_the_coarsest_level_has_about_8_pixels(side: int, patch: int, levels: int) -> None:
    found = networks((3, side, side), patch, {})
    assert {len(model.channel_multipliers) for model in found} == {levels}
    assert [model.width for model in found] == sorted({model.width for model in found})


def test_a_given_width_gets_groups_that_divide_it() -> None:
    [model] = networks((3, 32, 32), 1, {"width": 40})
    assert model.norm_groups == 8


def test_impossible_given_parameters_are_reported() -> None:
    with pytest.raises(UserError, match="attention_levels names level 5, but the levels are 0 to 2"):
        networks((3, 32, 32), 1, {"attention_levels": [5]})


@pytest.mark.parametrize("patch", [1, 4])
@pytest.mark.parametrize("image_shape", [(1, 28, 28), (4, 30, 50), (1, 96, 48)])
def test_planned_networks_accept_the_images(image_shape: tuple[int, int, int], patch: int) -> None:
    network = build_network(networks(image_shape, patch, {})[0], image_shape[0], 0)
    with torch.no_grad():
        assert network(torch.zeros(1, *image_shape), torch.zeros(1)).shape == (1, *image_shape)
