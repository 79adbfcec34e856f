"""A short training is sampled with every timestep spacing, also if the steps do not divide the timesteps."""

import numpy as np
import pytest
import torch

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import UNet
from tests.conftest import MADE_BY
from tests.training.test_loop import make_run, run_training

COLOURS = np.array([[220, 30, 30], [30, 200, 40], [30, 40, 220]])
SPACINGS = ("trailing", "leading", "linspace", "karras")


@pytest.mark.slow
def test_classes_are_sampled_in_their_colours_with_every_spacing() -> None:
    labels = np.arange(60, dtype=np.int64) % 3
    noise = np.random.default_rng(0).integers(-12, 13, (60, 8, 8, 3))
    images = (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
    store = ImageStore(images, labels, ("01", "02", "03"), MADE_BY)
    lengths = {"num_images": 3200, "report_interval": 3200, "checkpoint_interval": 3200, "preview_images": 0}
    changes = {"training": lengths | {"ema_half_life": 100}, "optimizer": {"lr": 5e-3}, "model": {"width": 16}}
    run = make_run(store, diffusion={"num_timesteps": 1000}, **changes)
    *_, report = run_training(run, store)
    network = UNet(run.model, 3, 3).eval()
    network.load_state_dict(report.checkpoint.ema)
    for spacing in SPACINGS:
        plan = SamplingPlan(run.diffusion, "dpm_solver++", 501, spacing=spacing)
        sampled = generate_images(network, plan, (3, 8, 8), 0, range(3), torch.arange(3))
        found = (sampled.mean((2, 3)).numpy() + 1) * 127.5
        assert np.abs(found - COLOURS).max() < 30, (spacing, found)
