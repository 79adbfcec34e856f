"""Properties of the mathematics, checked against closed forms."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ddpm_kedro.diffusion import (
    SAMPLERS,
    SPACINGS,
    TARGETS,
    THRESHOLDS,
    Denoiser,
    SamplingPlan,
    Step,
    diffusion_loss,
    generate_images,
    image_noise,
    make_schedule,
)
from ddpm_kedro.models import UNet
from ddpm_kedro.parameters import DiffusionParameters
from tests.conftest import DIFFUSION, MODEL, changed, randomise
from tests.synchronisations import Synchronisations

SHAPE = (1, 8, 8)
NOISE = changed(DIFFUSION, schedule="linear", num_timesteps=1000, target="noise")
EDM = changed(NOISE, schedule="edm", target="edm")
FLOW = changed(NOISE, schedule="flow", target="velocity")
ZERO = changed(NOISE, schedule="cosine", target="v", zero_terminal_snr=True)
PLANS = {"ddpm": NOISE, "cosine": changed(NOISE, schedule="cosine", target="v"), "zero": ZERO, "edm": EDM, "flow": FLOW}
MEAN, DEVIATION = 0.3, 0.5


def ideal(x: Tensor, step: Step) -> Tensor:
    """Return the best x_0 for data N(m, s²): m + s² alpha / (s² alpha² + sigma²) · (x - alpha m)."""
    gain = DEVIATION**2 * step.alpha / (DEVIATION**2 * step.alpha**2 + step.sigma**2)
    return MEAN + gain * (x - step.alpha * MEAN)


def path(count: int, preserving: bool, most: float = 20.0, least: float = 0.02) -> list[Step]:
    """Return steps whose noise levels are evenly spaced in their logarithm, the last above zero."""
    levels = torch.linspace(math.log(most), math.log(least), count + 1, dtype=torch.float64).exp().tolist()
    alphas = [(1 + level**2) ** -0.5 if preserving else 1.0 for level in levels]
    return [Step(0, alpha, alpha * level) for alpha, level in zip(alphas, levels, strict=True)]


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm_solver++", 2), ("heun", 2)])
@pytest.mark.parametrize("preserving", [True, False])
def test_order_of_convergence(sampler: str, order: int, preserving: bool) -> None:
    """The probability flow of a Gaussian is known: x / alpha - m grows like the root of s² + (sigma / alpha)²."""
    start = torch.linspace(-2, 2, 9, dtype=torch.float64).view(9, 1, 1, 1)

    def error(count: int) -> float:
        steps = path(count, preserving)
        first, last = steps[0], steps[-1]
        levels = [(DEVIATION**2 + (step.sigma / step.alpha) ** 2) ** 0.5 for step in (first, last)]
        exact = last.alpha * (MEAN + (start / first.alpha - MEAN) * levels[1] / levels[0])
        return float((SAMPLERS[sampler].sample(ideal, start, steps, lambda: torch.zeros(())) - exact).abs().max())

    errors = [error(count) for count in (80, 160, 320)]
    found = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert found[-1] == pytest.approx(order, abs=0.15), errors
    assert found[0] == pytest.approx(order, abs=0.3), errors


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_process_samples_a_gaussian(name: str, sampler: str) -> None:
    steps = make_schedule(PLANS[name]).steps(200, "linspace")
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(4000, 1, 2, 2, generator=generator)

    x = SAMPLERS[sampler].sample(ideal, steps[0].sigma * noise(), steps, noise)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [300, 501, 999])
def test_every_spacing_samples_a_gaussian_if_the_steps_do_not_divide_the_timesteps(spacing: str, count: int) -> None:
    steps = make_schedule(NOISE).steps(count, spacing)
    assert steps[0].alpha < 0.02, "sampling starts at noise"
    generator = torch.Generator().manual_seed(0)
    x = SAMPLERS["ddim"].sample(ideal, torch.randn(4000, 1, 2, 2, generator=generator), steps, lambda: torch.zeros(()))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(x.std()) == pytest.approx(DEVIATION, rel=0.03)


@pytest.mark.parametrize(("timesteps", "count"), [(1000, 501), (1000, 300), (1000, 10), (7, 3), (2, 1), (1000, 999)])
def test_spacings_follow_their_formulas(timesteps: int, count: int) -> None:
    levels = torch.linspace(0.01, 80, timesteps, dtype=torch.float64)
    leading, trailing, linspace, karras = (
        SPACINGS[name](levels, count, 7.0) for name in ("leading", "trailing", "linspace", "karras")
    )
    assert leading == [int(i * timesteps / count) for i in reversed(range(count))]
    assert trailing == [round(timesteps - i * timesteps / count) - 1 for i in range(count)]
    if count > 1:
        assert linspace == [round(i * (timesteps - 1) / (count - 1)) for i in reversed(range(count))]
    root = torch.linspace(80 ** (1 / 7), 0.01 ** (1 / 7), count, dtype=torch.float64) ** 7
    assert karras == list(dict.fromkeys(int((levels.log() - level.log()).abs().argmin()) for level in root))
    for rows in (leading, trailing, linspace, karras):
        assert rows == sorted(set(rows), reverse=True)
        assert 0 <= rows[-1] <= rows[0] < timesteps


def test_heun_takes_euler_steps_from_almost_pure_noise() -> None:
    """The cosine schedule ends at sigma / alpha = 20,000; a few steps later, it is 6."""
    steps = make_schedule(PLANS["cosine"]).steps(10)
    generator = torch.Generator().manual_seed(0)
    x = SAMPLERS["heun"].sample(ideal, torch.randn(4000, 1, 2, 2, generator=generator), steps, lambda: torch.zeros(()))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(x.std()) == pytest.approx(DEVIATION, rel=0.1)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(PLANS)),
    sampler=st.sampled_from(sorted(SAMPLERS)),
    spacing=st.sampled_from(sorted(SPACINGS)),
    timesteps=st.integers(2, 200),
    share=st.floats(0, 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
)
def test_a_known_image_is_always_recovered(
    name: str, sampler: str, spacing: str, timesteps: int, share: float, shape: tuple[int, ...]
) -> None:
    if name in {"zero", "flow"} and spacing in {"leading", "karras"}:
        spacing = "trailing"
    schedule = make_schedule(changed(PLANS[name], num_timesteps=timesteps))
    steps = schedule.steps(max(1, round(share * timesteps)), spacing)
    levels = [step.sigma / step.alpha if step.alpha else math.inf for step in steps]
    assert levels == sorted(levels, reverse=True)
    image = torch.rand(shape, dtype=torch.float64) * 2 - 1
    x = steps[0].sigma * torch.randn(shape, dtype=torch.float64)
    found = SAMPLERS[sampler].sample(lambda x, step: image, x, steps, lambda: torch.randn_like(image))
    torch.testing.assert_close(found, image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["zero", "flow"])
@pytest.mark.parametrize(("spacing", "words"), [("leading", "from its end"), ("karras", "a trace of the image")])
def test_spacings_that_are_impossible_with_pure_noise_are_an_error(name: str, spacing: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_schedule(PLANS[name]).steps(10, spacing)


class ConstantX0(nn.Module):
    """A network whose predictions always lead to one x_0, for any target."""

    def __init__(self, p: DiffusionParameters, x0: Tensor, indices: Tensor) -> None:
        super().__init__()
        self.target, self.x0, schedule = TARGETS[p.target], x0, make_schedule(p).to("cpu")
        (self.alpha, self.sigma), self.c_in = schedule.at(indices), schedule.c_in[indices][:, None, None, None]

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        noise = (x / self.c_in - self.alpha * self.x0) / self.sigma
        return self.target.compute(self.x0, noise, self.alpha, self.sigma)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm"])
@pytest.mark.parametrize("target", TARGETS)
def test_training_and_sampling_give_a_prediction_the_same_meaning(schedule: str, target: str) -> None:
    """x_t is scaled by c_in in sampling and in training."""
    p = changed(DIFFUSION, num_timesteps=1000, schedule=schedule, target=target)
    x, x0, table = torch.randn(2, *SHAPE), torch.rand(2, *SHAPE) * 2 - 1, make_schedule(p).to("cpu")
    step = table.steps(10)[4]
    index = int((table.c_noise - step.c_noise).abs().argmin())
    found = Denoiser(ConstantX0(p, x0, torch.full((2,), index)), TARGETS[target])(x, step)
    torch.testing.assert_close(found, x0, atol=1e-4, rtol=1e-4)


def losses(p: DiffusionParameters) -> Tensor:
    """Return the losses of one wrong x_0 at several rows of the schedule."""
    generator = torch.Generator().manual_seed(0)
    x0, noise, error = (torch.randn(6, *SHAPE, generator=generator) for _ in range(3))
    indices = torch.tensor([20, 100, 300, 500, 700, 900])
    network = ConstantX0(p, x0 + 0.3 * error, indices)
    return diffusion_loss(network, make_schedule(p).to("cpu"), TARGETS[p.target], x0, indices, noise)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm"])
@pytest.mark.parametrize("target", TARGETS)
def test_with_min_snr_every_target_has_the_same_loss(schedule: str, target: str) -> None:
    p = changed(NOISE, schedule=schedule, weighting="min_snr")
    torch.testing.assert_close(losses(changed(p, target=target)), losses(changed(p, target="x0")), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm", "flow"])
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "noise"])
def test_without_weights_losses_differ_only_by_the_slope(schedule: str, target: str) -> None:
    p = changed(NOISE, schedule=schedule, target=target)
    table = make_schedule(p)
    slope = TARGETS[target].slope(table.alpha, table.sigma)[[20, 100, 300, 500, 700, 900]].float()
    expected = losses(changed(p, target="x0")) * slope**2
    torch.testing.assert_close(losses(p), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "weight"),
    [
        ("noise", lambda snr: min(snr, 5) / snr),
        ("x0", lambda snr: min(snr, 5)),
        ("v", lambda snr: min(snr, 5) / (snr + 1)),
    ],
)
def test_min_snr_equals_the_weights_of_the_paper(target: str, weight: Callable[[float], float]) -> None:
    """Hang et al. (2023), section 3.4 and appendix."""
    table = make_schedule(changed(NOISE, target=target, weighting="min_snr"))
    for row in (0, 100, 500, 999):
        snr = float(table.alpha[row] / table.sigma[row]) ** 2
        assert float(table.weight[row]) == pytest.approx(weight(snr))


def test_the_loss_of_edm_equals_the_loss_of_the_paper() -> None:
    """Karras et al. (2022), table 1: (sigma² + s²) / (sigma s)² times the squared error of D."""
    table = make_schedule(EDM)
    sigma = table.sigma[[20, 100, 300, 500, 700, 900]].float()
    x0_loss = losses(changed(EDM, target="x0"))
    torch.testing.assert_close(losses(EDM), (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * x0_loss, rtol=1e-3, atol=1e-6)


def test_the_noise_levels_of_edm_are_log_normal_in_training() -> None:
    table = make_schedule(EDM).to("cpu")
    levels = table.sigma[table.indices((torch.arange(100_000) + 0.5) / 100_000)].log()
    assert float(levels.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(levels.std()) == pytest.approx(1.2, rel=0.01)
    assert [float(table.sigma[0]), float(table.sigma[-1])] == pytest.approx([0.002, 80], rel=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "flow"])
def test_timesteps_of_ddpm_and_flow_are_equally_frequent_in_training(name: str) -> None:
    table = make_schedule(PLANS[name]).to("cpu")
    rows = table.indices((torch.arange(100_000) + 0.5) / 100_000)
    counts = torch.bincount(rows, minlength=1000)
    assert 99 <= counts.min() <= counts.max() <= 101
    assert table.indices(torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 999]


def test_a_rectified_flow_is_a_straight_line_with_the_predicted_velocity() -> None:
    table = make_schedule(FLOW)
    x0, noise = torch.randn(2, *SHAPE, dtype=torch.float64), torch.randn(2, *SHAPE, dtype=torch.float64)
    before, after = (table.add_noise(x0, noise, torch.tensor([row, row])) for row in (499, 500))
    velocity = TARGETS["velocity"].compute(x0, noise, torch.tensor(0.5), torch.tensor(0.5))
    torch.testing.assert_close((after - before) * 1000, velocity)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_zero_terminal_snr_changes_the_end_and_not_the_beginning(schedule: str) -> None:
    usual = make_schedule(changed(NOISE, schedule=schedule, target="v"))
    zero = make_schedule(changed(NOISE, schedule=schedule, target="v", zero_terminal_snr=True))
    assert float(zero.alpha[-1]) == 0
    assert float(zero.alpha[0]) == float(usual.alpha[0])
    torch.testing.assert_close(zero.alpha**2 + zero.sigma**2, torch.ones(1000, dtype=torch.float64))
    assert (zero.alpha.diff() < 0).all()


def test_dynamic_thresholds_scale_only_images_that_leave_the_range() -> None:
    x0 = torch.linspace(-1, 1, 1000).view(1, 1, 10, 100).repeat(2, 1, 1, 1)
    x0[1] *= 3
    found = THRESHOLDS["dynamic"](x0)
    torch.testing.assert_close(found[0], x0[0])
    limit = float(x0[1].abs().flatten().quantile(0.995))
    torch.testing.assert_close(found[1], x0[1].clamp(-limit, limit) / limit)
    assert THRESHOLDS["none"](x0).abs().max() == 3


def test_guidance_is_limited_to_its_interval() -> None:
    network = randomise(UNet(MODEL, 1, 3), 0.1).eval()
    x, labels = torch.randn(3, *SHAPE), torch.tensor([0, 1, 2])
    steps = make_schedule(NOISE).steps(10)
    levels = [step.sigma / step.alpha for step in steps[:-1]]
    interval = (levels[7], levels[3])

    def x0(scale: float, within: Any, step: Step) -> Tensor:
        return Denoiser(network, TARGETS["v"], labels, scale, within, "none")(x, step)

    for number, step in enumerate(steps[:-1]):
        expected = x0(3.0, None, step) if 3 <= number <= 7 else x0(1.0, None, step)
        torch.testing.assert_close(x0(3.0, interval, step), expected)
    assert (x0(3.0, None, steps[5]) - x0(1.0, None, steps[5])).abs().max() > 1e-3
    pure_noise = make_schedule(ZERO).steps(5)[0]
    torch.testing.assert_close(x0(3.0, (0.5, math.inf), pure_noise), x0(3.0, None, pure_noise))
    torch.testing.assert_close(x0(3.0, (0.5, 10.0), pure_noise), x0(1.0, None, pure_noise))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@torch.no_grad()
def test_no_sampler_waits_for_the_device(sampler: str, threshold: str) -> None:
    network = randomise(UNet(MODEL, 1, 3), 0.1).eval()
    plan = SamplingPlan(DIFFUSION, sampler, 5, 1.5, guidance_interval=(0.1, 10.0), threshold=threshold)
    denoise, steps = plan.denoiser(network, torch.tensor([0, 1])), plan.steps
    with Synchronisations() as seen:
        SAMPLERS[sampler].sample(denoise, torch.randn(2, *SHAPE), steps, lambda: torch.zeros(2, *SHAPE))
    assert seen.count == 0
    with Synchronisations() as seen:
        torch.zeros(1).item()
    assert seen.count == 1


def test_sampling_starts_from_a_noised_image() -> None:
    network = randomise(UNet(MODEL, 1, 0), 0.1).eval()
    image = torch.rand(2, *SHAPE) * 2 - 1
    seen: list[Tensor] = []
    plan = SamplingPlan(NOISE, "ddim", 10, strength=0.3)
    assert len(plan.steps) == 4
    generate_images(network, plan, SHAPE, 0, range(2), callback=lambda x, x0: seen.append(x), image=image)
    noise = torch.stack([seen[0][i] - plan.steps[0].alpha * image[i] for i in range(2)]) / plan.steps[0].sigma
    torch.testing.assert_close(noise, image_noise(0, range(2), SHAPE)(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_masked_pixels_are_kept_bit_identical(sampler: str) -> None:
    network = randomise(UNet(MODEL, 1, 0), 0.1).eval()
    image, mask = torch.rand(2, *SHAPE) * 2 - 1, torch.zeros(2, 1, 8, 8)
    mask[:, :, :, :5] = 1
    found = generate_images(network, SamplingPlan(NOISE, sampler, 5), SHAPE, 0, range(2), image=image, mask=mask)
    assert torch.equal(found[..., :5], image[..., :5])
    assert (found[..., 5:] - image[..., 5:]).abs().max() > 0.1


def test_start_noise_replaces_the_first_noise_of_the_seed() -> None:
    network = randomise(UNet(MODEL, 1, 0), 0.1).eval()
    plan, start = SamplingPlan(NOISE, "ddim", 5), torch.randn(2, *SHAPE)
    found = [generate_images(network, plan, SHAPE, seed, range(2), start_noise=start) for seed in (0, 1)]
    assert torch.equal(*found)
    assert not torch.equal(found[0], generate_images(network, plan, SHAPE, 0, range(2)))


def test_samplers_compute_in_float32_under_autocast() -> None:
    network = randomise(UNet(MODEL, 1, 0), 0.1).eval()
    seen: list[Tensor] = []
    inside: list[torch.dtype] = []
    network.conv_in.register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
    samples = generate_images(
        network,
        SamplingPlan(NOISE, "dpm_solver++", 5),
        SHAPE,
        0,
        range(2),
        autocast=lambda: torch.autocast("cpu", torch.bfloat16),
        callback=lambda x, x0: seen.extend((x, x0)),
    )
    assert {tensor.dtype for tensor in (*seen, samples)} == {torch.float32}
    assert set(inside) == {torch.bfloat16}
