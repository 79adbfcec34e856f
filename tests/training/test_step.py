"""One training step: its gradient and its random numbers."""

import copy
from typing import Any

import pytest
import torch

from ddpm_kedro.diffusion import diffusion_loss
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.pixels import read_pixels
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.training.loader import StepPixels
from ddpm_kedro.training.trainer import Trainer
from tests.conftest import TRAINING
from tests.synchronisations import Synchronisations
from tests.training.test_loop import batch_of, make_run

CPU = choose_hardware("cpu", "fp32")


def make_trainer(store: ImageStore, hardware: Hardware = CPU, **groups: dict[str, Any]) -> Trainer:
    run = make_run(store, **groups)
    return Trainer(run, AugmentedImages(store, run.augmentation), store, hardware)


def test_a_step_follows_the_clipped_gradient_of_its_own_batch(store: ImageStore) -> None:
    trainer = make_trainer(store, optimizer={"max_grad_norm": 0.01})
    trainer.step(0, read_pixels(store, torch.arange(8)))
    twin = copy.deepcopy(trainer.network)
    diffusion_loss(twin, trainer.schedule, trainer.target, *batch_of(trainer, 1)).mean().backward()
    expected = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
    _, norm, _ = trainer.step(1, StepPixels(store, TRAINING.seed, 8)[1])
    assert float(norm) == pytest.approx(float(expected), rel=1e-4)
    for ours, theirs in zip(trainer.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_fp16_gradients_are_clipped_like_fp32_gradients(store: ImageStore, device: torch.device) -> None:
    pixels = read_pixels(store, torch.arange(8))
    trainers = [make_trainer(store, choose_hardware(device.type, precision)) for precision in ("fp32", "fp16")]
    norms = [float(trainer.step(0, pixels)[1]) for trainer in trainers]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_every_step_has_its_own_augmentation_and_noise(store: ImageStore) -> None:
    trainer = make_trainer(store, augmentation={"horizontal_flip": True})
    pixels = read_pixels(store, torch.arange(8))
    first, second = trainer.batch(0, pixels), trainer.batch(1, pixels)
    assert not any(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    torch.manual_seed(5)  # torch's global generator is not used
    assert all(torch.equal(a, b) for a, b in zip(first[:3], trainer.batch(0, pixels)[:3], strict=True))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_step_does_not_wait_for_the_device(optimizer: str, store: ImageStore) -> None:
    augmentation = {"horizontal_flip": True, "vertical_flip": True, "crop_padding": 1, "non_leaking": 0.3}
    trainer = make_trainer(store, optimizer={"name": optimizer}, augmentation=augmentation)
    pixels = read_pixels(store, torch.arange(8))
    trainer.step(0, pixels)
    with Synchronisations() as seen:
        trainer.step(1, pixels)
    assert seen.count == 0
