"""The training loop, and the tests that a course on diffusion models should include."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from ddpm_kedro.diffusion import SamplingPlan, diffusion_loss, generate_images, make_schedule
from ddpm_kedro.diffusion.targets import TARGETS
from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.pixels import read_pixels, to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import UNet
from ddpm_kedro.training.loader import StepPixels
from ddpm_kedro.training.loop import Report, train
from ddpm_kedro.training.optimizers import learning_rate
from ddpm_kedro.training.randomness import seeded
from ddpm_kedro.training.run import Run
from ddpm_kedro.training.trainer import Batch, Trainer
from tests.conftest import DIFFUSION, MODEL, NO_AUGMENTATION, OPTIMIZER, TRAINING, changed, make_store, randomise


def make_run(store: ImageStore, **groups: dict[str, Any]) -> Run:
    bases = {"model": MODEL, "diffusion": DIFFUSION, "augmentation": NO_AUGMENTATION, "optimizer": OPTIMIZER}
    parameters = {
        name: changed(base, **groups.get(name, {})) for name, base in (bases | {"training": TRAINING}).items()
    }
    return Run.of(AugmentedImages(store, parameters.pop("augmentation")), **parameters)


def run_training(
    run: Run, store: ImageStore, device: str = "cpu", precision: Any = "fp32", stop_at: int = 10**9, resume: Any = None
) -> list[Report]:
    seen = iter(range(1, 10**9))
    hardware = choose_hardware(device, precision)
    images = AugmentedImages(store, run.augmentation)
    return list(train(run, images, store, hardware, resume, lambda: next(seen) >= stop_at))


def batch_of(trainer: Trainer, step: int) -> Batch:
    p = trainer.run.training
    return trainer.batch(step, StepPixels(trainer.images.store, p.seed, p.batch_size)[step])


def weights(reports: list[Report]) -> dict[str, torch.Tensor]:
    assert reports[-1].checkpoint is not None
    return {name: tensor.clone() for name, tensor in reports[-1].checkpoint.ema.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_reports_at_every_interval_and_checkpoints_at_theirs(store: ImageStore) -> None:
    run = make_run(store, training={"num_images": 61, "report_interval": 16, "checkpoint_interval": 32})
    reports = run_training(run, store)
    assert [report.images_seen for report in reports] == [16, 32, 48, 64]
    assert [report.checkpoint is not None for report in reports] == [False, True, False, True]
    assert [row["images_seen"] for row in reports[-1].history] == [16, 32, 48, 64]
    assert set(reports[-1].history[0]) == {
        "images_seen",
        "loss",
        "learning_rate",
        "gradient_norm",
        "images_per_second",
        "validation_loss",
    }
    assert all(math.isfinite(value) for row in reports[-1].history for value in row.values())
    assert reports[-1].checkpoint.images_seen == run.num_images


def test_previews_without_label_dropout_are_not_guided(store: ImageStore) -> None:
    guided, plain = (
        run_training(make_run(store, training={"label_dropout": 0.0, "preview_guidance_scale": scale}), store)[0]
        for scale in (3.0, 1.0)
    )
    assert torch.equal(guided.preview, plain.preview)


def test_previews_are_uint8_images_with_labels(store: ImageStore) -> None:
    report = run_training(make_run(store), store)[0]
    assert report.preview.shape == (6, 8, 8, 1)
    assert report.preview.dtype == torch.uint8
    assert report.preview_labels.tolist() == [0, 1, 2, 0, 1, 2]
    silent = run_training(make_run(store, training={"preview_images": 0}), store)[0]
    assert silent.preview is None


def test_the_loss_falls(device: torch.device) -> None:
    store = make_store(8)
    run = make_run(store, training={"num_images": 1600, "report_interval": 400}, optimizer={"lr": 3e-3})
    history = run_training(run, store, device.type)[-1].history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["validation_loss"] < 0.7 * history[0]["validation_loss"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_falls_in_lower_precision(precision: str, device: torch.device) -> None:
    store = make_store(8)
    run = make_run(store, training={"num_images": 800, "report_interval": 400}, optimizer={"lr": 3e-3})
    history = run_training(run, store, device.type, precision)[-1].history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_a_network_memorises_one_image_and_generates_it(device: torch.device) -> None:
    """Overfit one batch, and test it with a forward process and a loss written out here.

    A network also learns with a wrong coefficient of the noise, such as the variance in place of the deviation; but at
    the right x_t, with the coefficient of eq. 4, such a network has a far larger error than this bound.
    """
    torch.manual_seed(0)
    p = changed(DIFFUSION, target="noise", schedule="linear", num_timesteps=100, beta_end=0.1)
    schedule, target = make_schedule(p), TARGETS["noise"]
    with seeded(torch.device("cpu"), 1):
        network = UNet(changed(MODEL, width=16), 1).to(device)
    image = torch.linspace(-0.9, 0.9, 64).view(1, 1, 8, 8).to(device)
    x0 = image.expand(32, -1, -1, -1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 400)
        noise, t = torch.randn(x0.shape).to(device), torch.randint(100, (32,)).to(device)
        loss = diffusion_loss(network, schedule.to(device), target, x0, t, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    betas = torch.linspace(1e-4, 0.1, 100)
    cumprod = torch.cumprod(1 - betas, 0)[30:].to(device)[:, None, None, None]
    noise = torch.randn(70, 1, 8, 8).to(device)
    with torch.no_grad():
        predicted = network(cumprod.sqrt() * image + (1 - cumprod).sqrt() * noise, torch.arange(30, 100).to(device))
    assert float(((predicted - noise) ** 2).mean()) < 0.03
    samples = generate_images(network, SamplingPlan(p, "ddim", 50), (1, 8, 8), 0, range(4))
    assert float((samples - image).abs().mean()) < 0.05


def test_training_noise_is_normal_and_timesteps_are_uniform(store: ImageStore, device: torch.device) -> None:
    run = make_run(store, training={"batch_size": 40}, diffusion={"num_timesteps": 10})
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, choose_hardware(device.type, "fp32"))
    batches = [batch_of(trainer, step) for step in range(40)]
    noise = torch.cat([batch[2] for batch in batches]).cpu()
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.var()) == pytest.approx(1, abs=0.02)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.15)  # 1.8 for uniform noise of the same variance
    counts = torch.cat([batch[1] for batch in batches]).cpu().bincount(minlength=10)
    assert counts.min() > 100
    assert all(tensor.device.type == device.type for tensor in batches[0] if tensor is not None)


def test_batches_contain_images_with_their_labels_and_some_empty_labels(store: ImageStore) -> None:
    run = make_run(store, training={"batch_size": 40, "label_dropout": 0.3})
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, choose_hardware("cpu", "fp32"))
    batches = [batch_of(trainer, step) for step in range(20)]
    x0, labels = torch.cat([b[0] for b in batches]), torch.cat([b[3] for b in batches])
    assert x0.min() >= -1
    assert x0.max() <= 1
    brightness = (x0.mean(dim=(1, 2, 3)) + 1) * 127.5
    kept = labels < 3
    assert torch.equal(((brightness - 30) / 60).round().long()[kept], labels[kept])
    assert float((labels == 3).float().mean()) == pytest.approx(0.3, abs=0.06)


def test_two_trainings_with_one_seed_are_bit_identical(store: ImageStore) -> None:
    run = make_run(store, model={"dropout": 0.1}, augmentation={"horizontal_flip": True})
    torch.manual_seed(1)
    first = run_training(run, store)
    torch.manual_seed(2)
    second = run_training(run, store)
    assert same(weights(first), weights(second))
    assert torch.equal(first[-1].preview, second[-1].preview)
    assert [row["loss"] for row in first[-1].history] == [row["loss"] for row in second[-1].history]


CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "seed": {"training": {"seed": 1}},
    "learning rate": {"optimizer": {"lr": 2e-3}},
    "optimizer": {"optimizer": {"name": "sgd", "betas": None, "momentum": 0.9}},
    "batch size": {"training": {"batch_size": 4}},
    "length": {"training": {"num_images": 72}},
    "EMA": {"training": {"ema_half_life": 5}},
    "ramp-up of the EMA": {"training": {"ema_rampup_ratio": None}},
    "label dropout": {"training": {"label_dropout": 0.5}},
    "dropout": {"model": {"dropout": 0.3}},
    "schedule": {"diffusion": {"schedule": "linear"}},
    "target": {"diffusion": {"target": "noise"}},
    "flips": {"augmentation": {"horizontal_flip": True}},
    "non-leaking augmentation": {"augmentation": {"non_leaking": 0.3}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_hyperparameters_give_another_run_and_other_weights(change: str, store: ImageStore) -> None:
    base, other = make_run(store), make_run(store, **CHANGES[change])
    assert base.run_id != other.run_id
    assert not same(weights(run_training(base, store)), weights(run_training(other, store)))


def test_parameters_outside_the_fingerprint_do_not_change_the_weights(store: ImageStore) -> None:
    base = make_run(store)
    quiet = {"report_interval": 64, "checkpoint_interval": 64, "preview_images": 0, "validation_images": 3}
    other = make_run(store, training=quiet)
    assert base.run_id == other.run_id
    assert same(weights(run_training(base, store)), weights(run_training(other, store)))


def test_other_images_are_another_run(store: ImageStore) -> None:
    run = make_run(store)
    other = replace(run, training_images="other")
    assert run.run_id != other.run_id


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7])
def test_a_stopped_training_resumes_to_equal_weights(stop_at: int, store: ImageStore) -> None:
    run = make_run(store, model={"dropout": 0.1})
    whole = run_training(run, store)
    stopped = run_training(run, store, stop_at=stop_at)
    assert stopped[-1].images_seen == stop_at * 8
    assert stopped[-1].checkpoint is not None
    resumed = run_training(run, store, resume=stopped[-1].checkpoint)
    assert same(weights(whole), weights(resumed))
    assert resumed[-1].history[-1]["images_seen"] == 64


def test_a_stop_does_not_wait_for_validation_or_previews(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: Trainer) -> None:
        raise AssertionError("a stop must not wait for this")

    monkeypatch.setattr(Trainer, "validation_loss", slow)
    monkeypatch.setattr(Trainer, "preview", slow)
    run = make_run(store, training={"report_interval": 16})
    [report] = run_training(run, store, stop_at=2)  # at a step with a report
    assert report.checkpoint is not None
    assert report.checkpoint.images_seen == 16
    assert report.history == []


def test_the_learning_rate_of_the_schedule_is_used(store: ImageStore) -> None:
    run = make_run(store)
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, choose_hardware("cpu", "fp32"))
    for step in (0, 3, 7):
        expected = learning_rate((step + 1) * 8, 64, run.optimizer)
        assert trainer.step(step, read_pixels(store, torch.arange(8)))[2] == expected
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [expected]


def test_a_loss_that_is_not_finite_stops_the_training(store: ImageStore) -> None:
    run = make_run(store, optimizer={"lr": 1e30, "max_grad_norm": 1e30, "warmup_images": 0})
    with pytest.raises(UserError, match=r"The loss is (nan|inf) in step \d, after .* images, learning rate"):
        run_training(run, store)


def test_a_batch_larger_than_the_data_is_an_error(store: ImageStore) -> None:
    with pytest.raises(UserError, match=r"training.batch_size = 64 is more than the 40 training images"):
        run_training(make_run(store, training={"batch_size": 64}), store)


def test_a_model_without_classes_ignores_the_labels(store: ImageStore) -> None:
    run = make_run(store, model={"class_conditional": False})
    reports = run_training(run, store)
    assert reports[-1].preview_labels is None
    assert "class_embedding.weight" not in weights(reports)


def test_images_without_labels_can_be_trained_on() -> None:
    store = make_store(classes=0)
    reports = run_training(make_run(store), store)
    assert reports[-1].images_seen == 64


def test_validation_and_previews_use_the_ema_weights(store: ImageStore) -> None:
    run = make_run(store)
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, choose_hardware("cpu", "fp32"))
    loss, (previews, _) = trainer.validation_loss(), trainer.preview()
    randomise(trainer.network)
    assert trainer.validation_loss() == loss
    assert torch.equal(trainer.preview()[0], previews)
    randomise(trainer.ema)
    assert trainer.validation_loss() != loss
    assert not torch.equal(trainer.preview()[0], previews)


def test_validation_and_previews_have_no_dropout(store: ImageStore) -> None:
    run = make_run(store, model={"dropout": 0.5})
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, choose_hardware("cpu", "fp32"))
    randomise(trainer.ema)
    assert trainer.validation_loss() == trainer.validation_loss()
    assert torch.equal(trainer.preview()[0], trainer.preview()[0])


def test_pixels_are_unchanged_after_conversion_to_floats_and_back() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    floats = values.float() / 127.5 - 1
    assert torch.equal(to_uint8(floats)[0, :, :, 0], values[0, 0])
    assert to_uint8(torch.tensor([[[[-7.0, 7.0]]]])).flatten().tolist() == [0, 255]
