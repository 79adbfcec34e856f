"""Schedules, samplers and spacings against those of diffusers, over whole trajectories."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from ddpm_kedro.diffusion import SAMPLERS, TARGETS, Denoiser, make_schedule
from ddpm_kedro.parameters import DiffusionParameters
from tests.conftest import DIFFUSION, changed
from tests.diffusion.test_samplers import SHAPE, Toy, seeded_noise

NOISE = changed(DIFFUSION, schedule="linear", num_timesteps=1000, target="noise")
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
TARGET_NAMES = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
PLANS = [
    NOISE,
    changed(NOISE, schedule="cosine", target="v"),
    changed(NOISE, schedule="scaled_linear", target="x0"),
    changed(NOISE, schedule="sigmoid", target="v"),
    changed(NOISE, target="v", zero_terminal_snr=True),
]
DTYPES = [(torch.float64, 1e-6), (torch.float32, 1e-3)]


def name_of(p: Any) -> str:
    return f"{p.schedule}-{p.target}{'-zero' if p.zero_terminal_snr else ''}"


def options(p: DiffusionParameters) -> dict[str, Any]:
    return {
        "num_train_timesteps": p.num_timesteps,
        "beta_schedule": BETAS[p.schedule],
        "beta_start": p.beta_start,
        "beta_end": p.beta_end,
        "prediction_type": TARGET_NAMES[p.target],
        "rescale_betas_zero_snr": p.zero_terminal_snr,
    }


def start(dtype: torch.dtype) -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def theirs(scheduler: Any, p: DiffusionParameters, count: int, x: Tensor, **step_options: Any) -> Tensor:
    """Return the trajectory of diffusers, with our table in place of theirs, which is float32."""
    scheduler.set_timesteps(count)
    if scheduler.alphas_cumprod.min() > 0:
        torch.testing.assert_close(scheduler.alphas_cumprod.double(), make_schedule(p).alpha ** 2, atol=2e-6, rtol=0)
    scheduler.alphas_cumprod = (make_schedule(p).alpha ** 2).to(x.dtype)
    for name in ("final_alpha_cumprod", "one"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, torch.ones((), dtype=x.dtype))
    for t in scheduler.timesteps:
        x = scheduler.step(Toy()(x, torch.full((len(x),), int(t))), t, x, **step_options).prev_sample
    return x


def ours(p: DiffusionParameters, sampler: str, count: int, x: Tensor, spacing: str = "trailing", **of: Any) -> Tensor:
    noise, _ = seeded_noise(x.shape, dtype=x.dtype)
    denoise = Denoiser(Toy(), TARGETS[p.target], threshold=of.pop("threshold", "clamp"))
    return SAMPLERS[sampler].sample(denoise, x, make_schedule(p).steps(count, spacing), noise, **of)


@pytest.mark.parametrize("p", PLANS[:4], ids=name_of)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
# with few steps and the large variance, diffusers adds noise in the last step too: not compared
@pytest.mark.parametrize(("count", "variance"), [(10, "small"), (200, "small"), (1000, "large")])
def test_ddpm(p: DiffusionParameters, count: int, variance: str, dtype: torch.dtype, tolerance: float) -> None:
    scheduler = DDPMScheduler(**options(p), variance_type=f"fixed_{variance}", timestep_spacing="trailing")
    expected = theirs(scheduler, p, count, start(dtype), generator=seeded_noise((2, *SHAPE))[1])
    found = ours(p, "ddpm", count, start(dtype), variance=variance)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


# only their DDPMScheduler has sigmoid betas
@pytest.mark.parametrize("p", [plan for plan in PLANS if plan.schedule != "sigmoid"], ids=name_of)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("count", "spacing"), [(10, "trailing"), (200, "trailing"), (10, "leading")])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_with_the_noise_derived_from_the_clamped_x0(
    p: DiffusionParameters, count: int, spacing: str, eta: float, dtype: torch.dtype, tolerance: float
) -> None:
    if p.zero_terminal_snr:
        spacing, dtype = "trailing", torch.float64  # in float32 theirs takes the root of a negative number
    scheduler = DDIMScheduler(**options(p), timestep_spacing=spacing)
    extra = {"eta": eta, "use_clipped_model_output": True, "generator": seeded_noise((2, *SHAPE))[1]}
    expected = theirs(scheduler, p, count, start(dtype), **extra)
    torch.testing.assert_close(ours(p, "ddim", count, start(dtype), spacing, eta=eta), expected, atol=tolerance, rtol=0)


def precise(scheduler: Any, p: DiffusionParameters, count: int, dtype: torch.dtype) -> Any:
    """Give a scheduler our noise levels, which are not rounded to float32."""
    scheduler.set_timesteps(count)
    steps = make_schedule(p).steps(count)
    assert [step.c_noise for step in steps[:-1]] == list(dict.fromkeys(scheduler.timesteps.tolist()))
    levels = torch.tensor([step.sigma / step.alpha for step in steps], dtype=dtype)
    repeated = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler.sigmas = levels if len(levels) == len(scheduler.sigmas) else repeated
    assert len(scheduler.sigmas) in {count + 1, 2 * count}
    return scheduler


@pytest.mark.parametrize("p", PLANS[:3], ids=name_of)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("count", [10, 20, 200])
def test_dpm_solver(p: DiffusionParameters, count: int, dtype: torch.dtype, tolerance: float) -> None:
    usual = {name: value for name, value in options(p).items() if name != "rescale_betas_zero_snr"}
    scheduler = DPMSolverMultistepScheduler(**usual, timestep_spacing="trailing", final_sigmas_type="zero")
    precise(scheduler, p, count, dtype)
    x, before = start(dtype), None
    for number, t in enumerate(scheduler.timesteps):  # not by step(), which rounds to float32
        scheduler._step_index = number
        x0 = scheduler.convert_model_output(Toy()(x, torch.full((len(x),), int(t))), sample=x)
        if before is None or number == count - 1:
            x = scheduler.dpm_solver_first_order_update(x0, sample=x)
        else:
            x = scheduler.multistep_dpm_solver_second_order_update([before, x0], sample=x)
        before = x0
    found = ours(p, "dpm_solver++", count, start(dtype), threshold="none")
    # without a clamp, the noise target divides by an alpha of 0.006
    torch.testing.assert_close(found, x, atol=tolerance * max(1.0, float(x.abs().max())), rtol=0)


# the last alpha of cosine is 5e-5, and theirs starts with x / alpha
@pytest.mark.parametrize("p", [NOISE, changed(NOISE, target="v")], ids=name_of)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_heun(p: DiffusionParameters, dtype: torch.dtype, tolerance: float) -> None:
    usual = {name: value for name, value in options(p).items() if name != "rescale_betas_zero_snr"}
    scheduler = precise(HeunDiscreteScheduler(**usual, timestep_spacing="trailing"), p, 10, dtype)
    alpha = make_schedule(p).step(-1).alpha
    x = start(dtype) / alpha  # theirs works on x / alpha
    for t in scheduler.timesteps:
        given = x / (scheduler.sigmas[scheduler.step_index or 0] ** 2 + 1) ** 0.5
        x = scheduler.step(Toy()(given, torch.full((len(x),), int(t))), t, x).prev_sample
    scale = float(x.abs().max())  # the noise target divides by alpha, and nothing is clamped
    found = ours(p, "heun", 10, start(dtype), threshold="none", sigma_max=1e3)
    torch.testing.assert_close(found, x, atol=tolerance * max(1.0, scale), rtol=0)


def test_edm_is_preconditioned_as_in_diffusers() -> None:
    p = changed(NOISE, schedule="edm", target="edm", num_timesteps=10_000)
    scheduler = EDMEulerScheduler(sigma_min=p.sigma_min, sigma_max=p.sigma_max, sigma_data=0.5, rho=p.rho)
    scheduler.set_timesteps(18)
    *steps, _ = make_schedule(p).steps(18, "karras", p.rho)
    torch.testing.assert_close(torch.tensor([s.sigma for s in steps]), scheduler.sigmas[:-1], rtol=2e-3, atol=0)
    x, answer = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    for step in steps:
        assert step.alpha == 1
        assert step.c_noise == pytest.approx(float(scheduler.precondition_noise(step.sigma)))
        torch.testing.assert_close(step.c_in * x, scheduler.precondition_inputs(x, step.sigma))
        expected = scheduler.precondition_outputs(x, answer, torch.tensor(step.sigma))
        torch.testing.assert_close(TARGETS["edm"].to_x0(answer, x, step.alpha, step.sigma), expected)


def test_ddim_is_eulers_method_on_a_rectified_flow() -> None:
    p = changed(NOISE, schedule="flow", target="velocity")
    steps = make_schedule(p).steps(20)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[step.sigma for step in steps[:-1]])
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([step.c_noise for step in steps[:-1]]))
    x = start(torch.float32)
    for t in scheduler.timesteps:
        x = scheduler.step(Toy()(x, t.expand(len(x))), t, x).prev_sample
    torch.testing.assert_close(ours(p, "ddim", 20, start(torch.float32), threshold="none"), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("spacing", "count"),
    [(spacing, count) for spacing in ("trailing", "linspace") for count in (2, 10, 37, 501, 1000)]
    + [("leading", count) for count in (2, 10, 125, 1000)],  # divisors of T
)
def test_spacings(spacing: str, count: int) -> None:
    scheduler = DDIMScheduler(**options(NOISE), timestep_spacing=spacing)
    scheduler.set_timesteps(count)
    *steps, _ = make_schedule(NOISE).steps(count, spacing)
    assert [step.c_noise for step in steps] == scheduler.timesteps.tolist()


def test_karras_spacing_equals_diffusers_at_the_nearest_timestep() -> None:
    scheduler = HeunDiscreteScheduler(beta_schedule="scaled_linear", use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    p = changed(NOISE, schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    ends = [float(make_schedule(p).step(row).sigma / make_schedule(p).step(row).alpha) for row in (0, -1)]
    *steps, _ = make_schedule(p).steps(10, "karras")
    assert (steps[0].c_noise, steps[-1].c_noise) == (999, 0)
    ramp = torch.linspace(ends[1] ** (1 / 7), ends[0] ** (1 / 7), 10) ** 7
    torch.testing.assert_close(torch.tensor([s.sigma / s.alpha for s in steps]), ramp, rtol=0.06, atol=0.002)
