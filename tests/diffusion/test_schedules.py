"""Schedules, targets and the loss against closed forms and diffusers."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ddpm_kedro.diffusion import CLEAN, TARGETS, diffusion_loss, make_schedule
from ddpm_kedro.parameters import DiffusionParameters
from tests.conftest import DIFFUSION, changed

LINEAR = changed(DIFFUSION, schedule="linear", num_timesteps=1000)
COSINE = changed(DIFFUSION, schedule="cosine", num_timesteps=1000)


def diffusers_scheduler(p: DiffusionParameters, **options: object) -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=p.num_timesteps,
        beta_start=p.beta_start,
        beta_end=p.beta_end,
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[p.schedule],
        **options,
    )


@pytest.mark.parametrize("p", [LINEAR, COSINE], ids=lambda p: p.schedule)
def test_equals_diffusers(p: DiffusionParameters) -> None:
    expected = diffusers_scheduler(p).alphas_cumprod.double()
    torch.testing.assert_close(make_schedule(p).alpha ** 2, expected, atol=2e-6, rtol=0)


def test_betas_of_the_cosine_schedule_are_at_most_0_999() -> None:
    """Without the limit, alpha at T-1 would be 1e-17, and the noise target would divide by it."""
    alpha = make_schedule(COSINE).alpha
    assert float((1 - (alpha[1:] / alpha[:-1]) ** 2).max()) == pytest.approx(0.999)


@pytest.mark.parametrize("p", [LINEAR, COSINE], ids=lambda p: p.schedule)
def test_schedules_preserve_variance_in_float64_and_are_float32_for_training(p: DiffusionParameters) -> None:
    schedule = make_schedule(p)
    assert schedule.alpha.dtype == torch.float64
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(1000, dtype=torch.float64))
    assert (schedule.sigma.diff() > 0).all()
    assert schedule.to("cpu").alpha.dtype == schedule.to("cpu").sigma.dtype == torch.float32


def test_ends_of_the_linear_schedule() -> None:
    schedule = make_schedule(LINEAR)
    assert schedule.sigma[0] == pytest.approx(math.sqrt(1e-4))
    assert float(schedule.alpha[-1] ** 2) == pytest.approx(4.04e-5, rel=0.01)  # almost pure noise at T-1


@pytest.mark.parametrize("p", [LINEAR, COSINE], ids=lambda p: p.schedule)
@pytest.mark.parametrize("t", [0, 10, 250, 500, 900, 999])
def test_mean_and_variance_of_x_t(p: DiffusionParameters, t: int, device: torch.device) -> None:
    """q(x_t | x_0) = N(sqrt(alphas_cumprod) x_0, 1 - alphas_cumprod), the product computed factor by factor."""
    betas = diffusers_scheduler(p).betas.double()
    alphas_cumprod = math.prod(1 - float(beta) for beta in betas[: t + 1])
    x0 = torch.full((4000, 1, 4, 4), 0.7, device=device)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(device)
    xt = make_schedule(p).to(device).add_noise(x0, noise, torch.full((4000,), t, device=device))
    assert float(xt.mean()) == pytest.approx(0.7 * math.sqrt(alphas_cumprod), abs=0.01)
    assert float(xt.var()) == pytest.approx(1 - alphas_cumprod, rel=0.02)


def test_each_image_has_its_own_timestep() -> None:
    schedule = make_schedule(COSINE).to("cpu")
    x0, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    t = torch.tensor([0, 500, 999])
    xt = schedule.add_noise(x0, noise, t)
    for i in range(3):
        torch.testing.assert_close(xt[i], schedule.alpha[t[i]] * x0[i] + schedule.sigma[t[i]] * noise[i])


@given(num_timesteps=st.integers(2, 1000), share=st.floats(0, 1))
def test_steps_descend_from_the_noisiest_to_the_clean(num_timesteps: int, share: float) -> None:
    count = max(1, round(share * num_timesteps))
    *steps, end = make_schedule(changed(COSINE, num_timesteps=num_timesteps)).steps(count)
    timesteps = [step.c_noise for step in steps]
    assert end == CLEAN
    assert len(timesteps) == count
    assert timesteps[0] == num_timesteps - 1
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert timesteps[-1] >= 0


@pytest.mark.parametrize("count", [1, 7, 50, 1000])
def test_steps_equal_the_trailing_spacing_of_diffusers(count: int) -> None:
    scheduler = diffusers_scheduler(LINEAR, timestep_spacing="trailing")
    scheduler.set_timesteps(count)
    assert [step.c_noise for step in make_schedule(LINEAR).steps(count)[:-1]] == scheduler.timesteps.tolist()


@pytest.mark.parametrize("count", [0, 1001])
def test_more_steps_than_timesteps_are_an_error(count: int) -> None:
    with pytest.raises(ValueError, match="1000 timesteps"):
        make_schedule(LINEAR).steps(count)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("t", [0, 300, 998])
def test_x0_is_recovered_from_every_target(name: str, t: int) -> None:
    schedule = make_schedule(COSINE)
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    x0, noise = torch.randn(2, 1, 3, 3, dtype=torch.float64), torch.randn(2, 1, 3, 3, dtype=torch.float64)
    target = TARGETS[name].compute(x0, noise, alpha, sigma)
    found = TARGETS[name].to_x0(target, alpha * x0 + sigma * noise, float(alpha), float(sigma))
    torch.testing.assert_close(found, x0, atol=1e-9, rtol=1e-6)


def test_targets_equal_the_formulas_of_the_papers() -> None:
    x0, noise, alpha, sigma = torch.randn(5), torch.randn(5), torch.tensor(0.8), torch.tensor(0.6)
    torch.testing.assert_close(TARGETS["noise"].compute(x0, noise, alpha, sigma), noise)
    torch.testing.assert_close(TARGETS["v"].compute(x0, noise, alpha, sigma), 0.8 * noise - 0.6 * x0)
    t = torch.tensor([500])
    scheduler = diffusers_scheduler(COSINE)
    schedule = make_schedule(COSINE).to("cpu")
    image, e = torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    torch.testing.assert_close(
        TARGETS["v"].compute(image, e, *schedule.at(t)),
        scheduler.get_velocity(image, e, t),
        atol=1e-5,
        rtol=1e-4,
    )


class Spy(nn.Module):
    """Return twice the input, and record the arguments."""

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        self.asked = x, timesteps, labels
        return 2 * x


def test_the_loss_is_the_squared_error_at_x_t() -> None:
    network, schedule = Spy(), make_schedule(COSINE).to("cpu")
    x0, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    t, labels = torch.tensor([10, 500, 990]), torch.tensor([0, 1, 2])
    loss = diffusion_loss(network, schedule, TARGETS["noise"], x0, t, noise, labels)
    x, *others = network.asked
    torch.testing.assert_close(x, schedule.add_noise(x0, noise, t))
    assert others[0].tolist() == t.tolist()
    assert others[1] is labels
    torch.testing.assert_close(loss, torch.stack([((2 * x[i] - noise[i]) ** 2).mean() for i in range(3)]))
