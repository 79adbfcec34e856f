"""The parts of the training loop: order of images, learning rate, EMA, hardware."""

import math
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from ddpm_kedro import hardware
from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.parameters.optimizer import OPTIMIZERS
from ddpm_kedro.training import randomness
from ddpm_kedro.training.optimizers import (
    ema_decay,
    learning_rate,
    make_optimizer,
    recommended_learning_rate,
    recommended_warmup,
    update_ema,
)
from ddpm_kedro.training.randomness import Stream, batch_indices, seeded
from tests.conftest import DEVICES, OPTIMIZER, TRAINING, changed


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (10, 3), (7, 7), (5, 4)])
def test_every_epoch_has_every_image_once_in_its_own_order(count: int, batch_size: int) -> None:
    row = torch.cat([batch_indices(0, step, batch_size, count) for step in range(6 * count)])
    epochs = row[: 6 * count].view(6, count)
    assert (epochs.sort(dim=1).values == torch.arange(count)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1
    assert not torch.equal(batch_indices(0, 0, count, count), batch_indices(1, 0, count, count))


def test_the_batch_of_a_step_does_not_depend_on_earlier_random_numbers() -> None:
    torch.manual_seed(0)
    first = batch_indices(3, 17, 8, 100)
    torch.manual_seed(1)
    torch.rand(5)
    randomness._epoch_order.cache_clear()
    assert torch.equal(first, batch_indices(3, 17, 8, 100))


def test_seeded_blocks_repeat_and_restore_the_global_state(device: torch.device) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    numbers = []
    for counters in ((1, 2), (1, 2), (1, 3)):
        with seeded(device, *counters):
            numbers.append(torch.rand(4, device=device))
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])
    assert torch.equal(before, torch.get_rng_state())


def test_streams_are_independent() -> None:
    numbers = []
    for stream in Stream:
        with seeded(torch.device("cpu"), 0, stream, 0):
            numbers.append(tuple(torch.rand(3).tolist()))
    assert len(set(numbers)) == len(Stream)


@pytest.mark.parametrize(
    ("images_seen", "schedule", "expected"),
    [
        (0, "constant", 0.0),
        (50, "constant", 0.5),
        (100, "constant", 1.0),
        (900, "constant", 1.0),
        (50, "cosine", 0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.05)))),
        (500, "cosine", 0.1 + 0.9 * 0.5),
        (1000, "cosine", 0.1),
        (1010, "cosine", 0.1),
    ],
)
def test_learning_rate(images_seen: int, schedule: str, expected: float) -> None:
    p = changed(OPTIMIZER, lr=1.0, warmup_images=100, lr_schedule=schedule, final_lr_fraction=0.1)
    assert learning_rate(images_seen, 1000, p) == pytest.approx(expected)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 1000, changed(OPTIMIZER, lr=1.0, warmup_images=0)) == 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_minimises_a_parabola(name: str, device: torch.device) -> None:
    own = {"betas": None, "momentum": 0.9} if name == "sgd" else {}
    weight = nn.Parameter(torch.tensor([3.0], device=device))
    optimizer = make_optimizer([weight], changed(OPTIMIZER, name=name, lr=0.05, **own))
    for _ in range(300):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert abs(weight.item()) < 0.1


def test_momentum_and_weight_decay_are_used() -> None:
    weights = [nn.Parameter(torch.ones(1))]
    sgd = make_optimizer(weights, changed(OPTIMIZER, name="sgd", betas=None, momentum=0.7))
    assert sgd.defaults["momentum"] == 0.7
    adamw = make_optimizer(weights, changed(OPTIMIZER, name="adamw", weight_decay=0.3))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["weight_decay"] == 0.3
    assert adamw.defaults["betas"] == (0.9, 0.99)
    assert all(optimizer.defaults["fused"] for optimizer in (sgd, adamw))


def test_ema_is_exponential() -> None:
    ema, network = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(ema.weight, 0.0)
    nn.init.constant_(network.weight, 1.0)
    update_ema(ema, network, decay=0.9)
    assert ema.weight.item() == pytest.approx(0.1)
    update_ema(ema, network, decay=0.99)
    assert ema.weight.item() == pytest.approx(0.99 * 0.1 + 0.01)


def test_ema_leaves_buffers_alone_and_ignores_parameters_that_it_lacks() -> None:
    ema, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    network.running_mean.fill_(5.0)
    network.bias.data.fill_(3.0)
    network.register_parameter("another", nn.Parameter(torch.ones(7)))
    update_ema(ema, network, decay=0.5)
    assert ema.running_mean.item() == 0.0
    assert ema.bias.item() == 1.5


@pytest.mark.parametrize(
    ("images_seen", "half_life", "ratio", "expected"),
    [
        (0, 200, 0.05, 0.0),  # the first step: the EMA is the network
        (1000, 200, 0.05, 0.5 ** (8 / 50)),
        (4000, 200, 0.05, 0.5 ** (8 / 200)),
        (10**9, 200, 0.05, 0.5 ** (8 / 200)),
        (0, 200, None, 0.5 ** (8 / 200)),
        (3, 200, 1.0, 0.5 ** (8 / 3)),
    ],
)
def test_the_decay_of_the_ema_follows_from_the_images_seen(
    images_seen: int, half_life: float, ratio: float | None, expected: float
) -> None:
    for length in (64, 10**9):
        p = changed(TRAINING, ema_half_life=half_life, ema_rampup_ratio=ratio, num_images=length)
        assert ema_decay(images_seen, p) == expected


def ema_of_a_ramp(images: int, batch_size: int, half_life: float, ratio: float | None) -> float:
    """Return the EMA of a weight that equals the number of images seen; it starts at -1,000,000."""
    p = changed(TRAINING, batch_size=batch_size, ema_half_life=half_life, ema_rampup_ratio=ratio)
    ema, network = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(ema.weight, -1e6)
    for step in range(images // batch_size):
        nn.init.constant_(network.weight, (step + 1.0) * batch_size)
        update_ema(ema, network, ema_decay(step * batch_size, p))
    return ema.weight.item()


@pytest.mark.parametrize("batch_size", [1, 4, 16, 32])
def test_the_ema_of_a_linear_ramp_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    """In the limit of small batches the EMA lags by half-life / ln 2 images; a batch of b images lags b / 2 less."""
    constant = ema_of_a_ramp(3200, batch_size, 64, 0.2)
    assert constant == pytest.approx(3200 - 64 / math.log(2) + batch_size / 2, abs=1)
    exact = batch_size / (2 ** (batch_size / 64) - 1)  # the sum of a geometric series
    assert constant == pytest.approx(3200 - exact, abs=1e-6)
    share = math.log(2) / 0.05
    growing = ema_of_a_ramp(3200, batch_size, 10**9, 0.05)  # d(ema)/dn = ln 2 / (0.05 n) · (n - ema)
    assert growing == pytest.approx(3200 * share / (share + 1), abs=batch_size / 2 + 1)
    assert ema_of_a_ramp(320, batch_size, 64, None) < 0  # without a limit it remembers the beginning


def test_recommended_learning_rates_are_near_those_of_known_recipes() -> None:
    for width, batch_size, used in ((16, 32, 3e-3), (128, 256, 8e-4), (128, 512, 1e-3)):
        assert recommended_learning_rate(width, batch_size) == pytest.approx(used, rel=0.3)
    assert recommended_learning_rate(64, 128) == 2 * recommended_learning_rate(128, 128)
    assert recommended_learning_rate(64, 128) == pytest.approx(2 * recommended_learning_rate(64, 32))
    assert recommended_learning_rate(4, 4096) == 3e-3
    assert recommended_warmup(200_000_000) == 10_000_000
    assert recommended_warmup(19) == 0


def test_auto_chooses_an_available_device() -> None:
    assert choose_hardware("auto", "auto").device.type in DEVICES


@pytest.mark.parametrize(
    ("there", "native", "expected"),
    [
        ({"cuda", "cpu"}, True, ("cuda", "bf16")),
        ({"cuda", "cpu"}, False, ("cuda", "fp32")),
        ({"mps", "cpu"}, False, ("mps", "fp32")),
        ({"cpu"}, True, ("cpu", "bf16")),
        ({"cpu"}, False, ("cpu", "fp32")),
    ],
)
def test_auto_chooses_bf16_only_if_it_is_native(
    there: set[str], native: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cuda", "mps", "cpu"):
        monkeypatch.setitem(hardware.AVAILABLE, name, lambda name=name: name in there)
        monkeypatch.setitem(hardware.NATIVE_BF16, name, lambda: native)
    chosen = choose_hardware("auto", "auto")
    assert (chosen.device.type, chosen.precision) == expected
    assert "native" in chosen.reason


@pytest.mark.parametrize(("capabilities", "expected"), [({"avx2": True}, "fp32"), ({"avx512_bf16": True}, "bf16")])
def test_a_cpu_without_bf16_instructions_computes_in_fp32(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_hardware("cpu", "auto").precision == expected


def test_emulated_bf16_on_a_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: calls.append(including_emulation))
    hardware.NATIVE_BF16["cuda"]()
    assert calls == [False]


def test_an_unavailable_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hardware.AVAILABLE, "cuda", lambda: False)
    with pytest.raises(UserError, match=r"device = cuda is not available here; this machine has: .*cpu"):
        choose_hardware("cuda", "auto")


def test_the_requested_device_and_precision_are_used(device: torch.device) -> None:
    chosen = choose_hardware(device.type, "bf16")
    with chosen.autocast():
        out = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert out.dtype == torch.bfloat16
    assert not chosen.grad_scaler().is_enabled()
    assert choose_hardware(device.type, "fp16").grad_scaler().is_enabled()


CAUSES = {
    "no CUDA in torch": (None, None, (), "torch was installed without CUDA"),
    "no driver": ("13.0", None, (), "no NVIDIA driver was found"),
    "no driver in a container": ("13.0", None, ("container",), "start the container with --gpus all, on a host"),
    "old driver": (
        "13.0",
        (12, 4),
        (),
        "made for CUDA 12.4; this torch needs CUDA 13.0, which means driver 580 or newer",
    ),
    "old driver, new CUDA": ("99.1", (13, 0), (), "made for CUDA 13.0; this torch needs CUDA 99.0 (nvidia-smi"),
    "driver of an older minor version": ("13.2", (13, 0), (), "A GPU driver is installed, but no GPU is visible"),
    "hidden GPU": ("13.0", (13, 1), ("container",), "CUDA_VISIBLE_DEVICES"),
    "CUDA's own words": ("13.0", (13, 1), (), "CUDA says: CUDA initialization: Error 803"),
}


@pytest.mark.parametrize(("cuda", "driver", "variables", "words"), CAUSES.values(), ids=CAUSES)
def test_the_reason_for_no_gpu_is_reported(
    cuda: str | None,
    driver: tuple[int, int] | None,
    variables: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("container", raising=False)
    for name in variables:
        monkeypatch.setenv(name, "oci")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(hardware, "cuda_of_driver", lambda: driver)

    def is_available() -> bool:
        warnings.warn("CUDA initialization: Error 803: system has unsupported display driver\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    line = hardware.gpu_problem()
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(("status", "expected"), [(0, (12, 4)), (100, None)])
def test_the_cuda_version_of_the_driver_is_read(
    status: int, expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        @staticmethod
        def cuDriverGetVersion(version: Any) -> int:  # noqa: N802  CUDA's name
            version._obj.value = 12040
            return status

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: Library)
    assert hardware.cuda_of_driver() == expected


def test_without_a_driver_there_is_no_cuda_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(hardware.ctypes, "CDLL", missing)
    assert hardware.cuda_of_driver() is None


def test_a_machine_with_cuda_has_a_driver_version() -> None:
    assert (hardware.cuda_of_driver() is not None) or "cuda" not in DEVICES


def test_threads_do_not_disturb_each_others_global_random_numbers() -> None:
    def random_numbers(seed: int) -> list[float]:
        found = []
        for step in range(200):
            with seeded(torch.device("cpu"), seed, step):
                found += [float(torch.rand(())) for _ in range(10)]
        return found

    one_by_one = [random_numbers(seed) for seed in range(4)]
    before = torch.random.get_rng_state()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            in_threads = list(pool.map(random_numbers, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert in_threads == one_by_one
    assert torch.equal(torch.random.get_rng_state(), before)
