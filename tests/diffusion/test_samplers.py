"""Samplers against closed forms and diffusers, and their noise."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion import (
    SAMPLERS,
    SPACINGS,
    TARGETS,
    THRESHOLDS,
    WEIGHTINGS,
    Denoiser,
    SamplingPlan,
    Schedule,
    Step,
    ddim,
    ddpm,
    generate_images,
    image_noise,
    make_schedule,
)
from ddpm_kedro.models import UNet
from ddpm_kedro.parameters import DiffusionParameters, Group, SamplingParameters
from tests.conftest import DIFFUSION, MODEL, changed, randomise
from tests.fake_gpu import GPU, fake_gpu

SHAPE = (1, 8, 8)
LINEAR = changed(DIFFUSION, schedule="linear", num_timesteps=1000, target="noise")
COSINE = changed(DIFFUSION, schedule="cosine", num_timesteps=1000)


class Toy(nn.Module):
    """A smooth function of image, time and class that needs no training."""

    num_classes = 3

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        shift = timesteps.view(-1, 1, 1, 1) / 1000
        bias = 0 if labels is None else 0.1 * labels.view(-1, 1, 1, 1)
        return torch.sin(2 * x + shift) * 0.9 + bias


def seeded_noise(
    shape: tuple[int, ...], seed: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], Tensor], torch.Generator]:
    generator, twin = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=dtype), twin


def test_ancestral_step_has_the_posterior_of_the_paper() -> None:
    """Ho et al. (2020), eq. 7, written out for one step of all timesteps."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    cumprod = torch.cumprod(1 - betas, 0)
    t = 600
    steps = make_schedule(LINEAR).steps(1000)[999 - t : 999 - t + 2]
    x = torch.linspace(-2, 2, 20_000, dtype=torch.float64).view(20_000, 1, 1, 1)
    noise = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = ddpm(lambda x, step: torch.full_like(x, 0.3), x, steps, lambda: noise)
    mean = (
        cumprod[t - 1].sqrt() * betas[t] / (1 - cumprod[t]) * 0.3
        + (1 - betas[t]).sqrt() * (1 - cumprod[t - 1]) / (1 - cumprod[t]) * x
    )
    variance = (1 - cumprod[t - 1]) / (1 - cumprod[t]) * betas[t]
    torch.testing.assert_close(out, mean + variance.sqrt() * noise)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance() -> None:
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    steps = make_schedule(COSINE).steps(1000)
    denoise = Denoiser(Toy(), TARGETS["v"])
    images = [
        sampler(denoise, x, steps, seeded_noise((2, *SHAPE))[0], **options)
        for sampler, options in ((ddim, {"eta": 1.0}), (ddpm, {"variance": "small"}))
    ]
    torch.testing.assert_close(*images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_perfect_denoiser_leads_to_its_image(sampler: str) -> None:
    image = torch.rand(1, *SHAPE) * 2 - 1
    steps = make_schedule(COSINE).steps(20)
    found = SAMPLERS[sampler].sample(
        lambda x, step: image, torch.randn(1, *SHAPE), steps, lambda: torch.randn(1, *SHAPE)
    )
    torch.testing.assert_close(found, image)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_a_gaussian_have_its_mean_and_deviation(sampler: str) -> None:
    """For data N(m, s²) the best x_0 is known: m + s² alpha / (s² alpha² + sigma²) · (x - alpha m)."""
    mean, deviation = 0.3, 0.2

    def denoise(x: Tensor, step: Step) -> Tensor:
        gain = deviation**2 * step.alpha / (deviation**2 * step.alpha**2 + step.sigma**2)
        return mean + gain * (x - step.alpha * mean)

    noise, _ = seeded_noise((4000, 1, 2, 2))
    x = SAMPLERS[sampler].sample(denoise, noise(), make_schedule(COSINE).steps(200), noise)
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.std()) == pytest.approx(deviation, rel=0.05)


def test_noise_is_normal_and_not_uniform() -> None:
    noise = image_noise(0, range(500), (1, 16, 16))()
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.var()) == pytest.approx(1, abs=0.01)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.1)  # 1.8 for uniform noise of the same variance


def test_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    alone, together = image_noise(7, [5], SHAPE), image_noise(7, range(64), SHAPE)
    for _ in range(3):
        assert torch.equal(alone()[0], together()[5])
    first = image_noise(7, [5, 6], SHAPE)()
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], image_noise(8, [5], SHAPE)()[0])


@pytest.mark.parametrize(("sampler", "options"), [("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0}), ("ddpm", {})])
def test_an_image_is_the_same_in_a_batch_of_1_and_of_64(
    sampler: str, options: dict[str, Any], device: torch.device
) -> None:
    network = randomise(UNet(MODEL, 1, 3), 0.1).eval().to(device)
    plan = SamplingPlan(DIFFUSION, sampler, 10, 1.5, options)
    labels = torch.arange(64) % 3
    together = generate_images(network, plan, SHAPE, 3, range(64), labels)
    alone = torch.cat([generate_images(network, plan, SHAPE, 3, [i], labels[i : i + 1]) for i in (0, 17, 63)])
    assert together.std() > 0.1
    assert not torch.equal(together[:1], generate_images(network, plan, SHAPE, 4, [0], labels[:1]))
    torch.testing.assert_close(alone, together[[0, 17, 63]], atol=1e-4, rtol=0)


def test_guidance_extrapolates_beyond_the_conditional_prediction() -> None:
    x, step = torch.randn(3, *SHAPE), make_schedule(COSINE).steps(1000)[500]
    labels = torch.tensor([0, 1, 2])

    def x0(labels: Tensor, scale: float = 1.0) -> Tensor:
        return Denoiser(Toy(), TARGETS["noise"], labels, scale)(x * 0.1, step)

    conditional, empty = x0(labels), x0(torch.full((3,), Toy.num_classes))
    torch.testing.assert_close(x0(labels, 1.5), (empty + 1.5 * (conditional - empty)).clamp(-1, 1))
    torch.testing.assert_close(x0(labels, 0.0), empty)
    assert (x0(labels, 1.5) - conditional).abs().max() > 1e-3


def test_x0_is_clamped() -> None:
    step = make_schedule(LINEAR).steps(1000)[0]
    found = Denoiser(Toy(), TARGETS["noise"])(torch.randn(2, *SHAPE), step)
    assert found.abs().max() == 1  # at T-1 the noise target divides by 0.006


def test_samples_stay_in_range(device: torch.device) -> None:
    network = randomise(UNet(MODEL, 1, 0)).eval().to(device)
    for sampler in SAMPLERS:
        samples = generate_images(network, SamplingPlan(DIFFUSION, sampler, 5), SHAPE, 0, range(4))
        assert samples.dtype == torch.float32
        assert samples.abs().max() <= 1
        assert samples.device.type == device.type


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_leaves_no_tensor_on_the_cpu(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = make_schedule(DIFFUSION).steps(3)
    monkeypatch.setattr(Schedule, "steps", lambda *_: steps)  # a fake table has no numbers
    with fake_gpu():
        network = UNet(MODEL, 1, 3).to(GPU.device)
        samples = generate_images(
            network, SamplingPlan(DIFFUSION, sampler, 3, 1.5), SHAPE, 0, range(4), torch.arange(4) % 3
        )
    assert samples.device.type == "cuda"


@pytest.mark.parametrize(
    ("sampler", "options"), [*((name, {}) for name in SAMPLERS), ("ddim", {"eta": 0.5}), ("ddim", {"eta": 0.0})]
)
def test_samplers_are_stochastic_and_evaluate_the_network_as_their_records_say(
    sampler: str, options: dict[str, Any]
) -> None:
    plan = SamplingPlan(changed(COSINE, schedule="edm", target="edm"), sampler, 10, options=options)
    noised: list[Tensor] = []
    evaluated: list[Step] = []

    def noise() -> Tensor:
        noised.append(torch.zeros(1, *SHAPE))
        return noised[-1]

    def denoise(x: Tensor, step: Step) -> Tensor:
        evaluated.append(step)
        return x * 0.1

    SAMPLERS[sampler].sample(denoise, torch.ones(1, *SHAPE), plan.steps, noise, **options)
    assert plan.stochastic == bool(noised)
    assert plan.evaluations - 1 <= len(evaluated) <= plan.evaluations  # a last step of heun needs one
    assert set(SAMPLERS[sampler].options.values()) <= set(SamplingParameters.model_fields)


@pytest.mark.parametrize(
    ("group", "name", "table"),
    [
        (SamplingParameters, "sampler", SAMPLERS),
        (SamplingParameters, "timestep_spacing", SPACINGS),
        (SamplingParameters, "threshold", THRESHOLDS),
        (DiffusionParameters, "target", TARGETS),
        (DiffusionParameters, "weighting", WEIGHTINGS),
    ],
)
def test_a_parameter_accepts_the_names_of_its_table(group: type[Group], name: str, table: dict[str, Any]) -> None:
    assert set(get_args(group.model_fields[name].annotation)) == set(table)
