"""The memory of a training: estimated, compared with the device, and what happens when it runs out."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.training.memory import TINY, case_of
from torch import Tensor

from ddpm_kedro import hardware
from ddpm_kedro.distributed import World
from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import Hardware, available_memory, choose_hardware, host_memory
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.training import memory, memory_check
from ddpm_kedro.training.memory import BATCH, LIBRARIES, LiveMemory, inference_memory, training_memory
from ddpm_kedro.training.memory_check import UNKNOWN, MemoryCheck, is_out_of_memory, next_parts
from ddpm_kedro.training.trainer import Trainer
from tests.conftest import DIFFUSION, MODEL, NO_AUGMENTATION, OPTIMIZER, TRAINING, changed, make_store
from tests.processes import run
from tests.training.test_loop import make_run, run_training, same, weights

CPU, GPU = choose_hardware("cpu", "fp32"), Hardware(torch.device("cuda"), "bf16", "")
GROUPS = {
    "augmentation": NO_AUGMENTATION,
    "diffusion": DIFFUSION,
    "model": MODEL,
    "optimizer": OPTIMIZER,
    "training": TRAINING,
}
SHAPE = (3, 32, 32)
MESSAGE = "[enforce fail at alloc_cpu.cpp:126] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B"


def estimate(part: int = 8, hardware: Hardware = CPU, *, checkpointing: bool = False, **options: Any) -> int:
    model = changed(MODEL, **options.pop("model", {}))
    return training_memory(model, SHAPE, 0, part, hardware, checkpointing, **options)


# ---- the estimate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "images", "setting"),
    [
        (TINY, 128, 5, {}),
        (TINY | {"width": 32, "blocks_per_level": 2}, 96, 5, {"activation_checkpointing": True}),
    ],
    ids=["all activations", "activation checkpointing"],
)
def test_the_estimate_is_near_the_measured_memory(
    model: dict[str, Any], size: int, images: int, setting: dict[str, Any], tmp_path: Path
) -> None:
    case = case_of(GROUPS, "tiny", model, size, images, "fp32", **setting)
    finished = run(tmp_path, "benchmarks.training.memory", json.dumps(case))
    assert finished.returncode == 0, finished.stdout
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["measured"] > 300e6
    assert found["estimate"] == pytest.approx(found["measured"], rel=0.2)  # two runs differ by up to 15 %


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_is_near_the_memory_of_the_tensors(
    precision: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA counts them; on other devices, all tensors of a real training are followed."""
    monkeypatch.setattr(memory, "HOLES", {False: 1.0})
    store, chosen = make_store(16, 0, (32, 32), 3), choose_hardware(device.type, precision)
    run = make_run(store, model=TINY, training={"batch_size": 16})
    is_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated() if is_gpu else 0
    with nullcontext() if is_gpu else LiveMemory() as followed:
        trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, chosen)
        for step in range(2):
            trainer.step(step, torch.from_numpy(store.images))
    if is_gpu:
        measured = torch.cuda.max_memory_allocated() - before
    else:
        measured = max(fixed + BATCH * per_image for fixed, per_image in followed.moments)
    expected = training_memory(run.model, (3, 32, 32), 0, 16, chosen, False) - LIBRARIES
    assert expected == pytest.approx(measured, rel=0.1)


def test_weights_are_counted_as_often_as_they_are_kept() -> None:
    """Network, gradients, EMA, and two states of Adam or one of SGD."""
    wide = {"width": 512}
    with torch.device("meta"):
        network = sum(weight.nbytes for weight in memory_check.build_network(changed(MODEL, **wide), 3).parameters())
    adam, sgd = (estimate(1, model=wide, optimizer=name) for name in ("adam", "sgd"))
    assert adam - sgd == network
    assert 5 * network < adam < 6 * network


def test_more_images_at_once_need_proportionally_more() -> None:
    sizes = [estimate(part) for part in (16, 32, 64, 128)]
    assert sizes[3] - sizes[2] == pytest.approx(2 * (sizes[2] - sizes[1]), rel=0.01)
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.01)


def test_what_needs_less_memory() -> None:
    usual = estimate(64)
    assert estimate(64, checkpointing=True) < 0.8 * usual
    half, full = (estimate(64, choose_hardware("cpu", name), model={"patch_size": 2}) for name in ("bf16", "fp32"))
    assert half - LIBRARIES < 0.75 * (full - LIBRARIES)
    assert estimate(16, batch=64) < 0.4 * usual
    assert inference_memory(MODEL, SHAPE, 0, 128, CPU) < usual  # validation, and previews with guidance


def test_the_attention_weights_of_a_cpu_in_bfloat16_are_counted() -> None:
    attention = {"attention_levels": (0, 1)}
    on_gpu, on_cpu = (estimate(16, device, model=attention) for device in (GPU, choose_hardware("cpu", "bf16")))
    assert on_cpu > 4 * on_gpu


def test_the_estimate_uses_no_global_random_numbers() -> None:
    before = torch.get_rng_state()
    estimate(4, checkpointing=True, model={"dropout": 0.3, "width": 16})
    assert torch.equal(before, torch.get_rng_state())


# ---- the memory of a machine


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    """Write a Linux with 8,000 kB of available memory, these groups of the process, and their files."""
    files = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n", "proc/self/cgroup": groups, **limits}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
MACHINES = {
    "no group": ("", {}, 8_192_000),
    "no limit": ("0::/a\n", {f"{V2}/a/memory.max": "max\n", f"{V2}/a/memory.current": "5"}, 8_192_000),
    "version 2": (
        "0::/a/b\n",
        {
            f"{V2}/a/memory.max": "5000",
            f"{V2}/a/memory.current": "3000",
            f"{V2}/a/memory.stat": "anon 9\ninactive_file 500\n",
        },
        2_500,
    ),
    "version 1 in a container": (
        "9:memory:/docker/abc\n0::/\n",
        {
            f"{V1}/memory.limit_in_bytes": "7000",
            f"{V1}/memory.usage_in_bytes": "3000",
            f"{V1}/memory.stat": "total_inactive_file 1000\n",
        },
        5_000,
    ),
}


@pytest.mark.parametrize(("groups", "limits", "expected"), MACHINES.values(), ids=MACHINES)
def test_the_limits_of_control_groups_count(groups: str, limits: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert host_memory(machine(tmp_path, groups, limits)) == expected


def test_the_memory_is_unknown_without_proc(tmp_path: Path) -> None:
    assert host_memory(tmp_path) is None


def test_every_device_knows_its_memory(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_memory(device) > 2**20
    monkeypatch.setattr(hardware, "host_memory", lambda: 900)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")  # torchrun starts so many processes on this machine
    assert available_memory(torch.device("cpu")) == 300


# ---- before the first step


def check(store: ImageStore, available: int | None, monkeypatch: pytest.MonkeyPatch, **training: Any) -> MemoryCheck:
    monkeypatch.setattr(memory_check, "available_memory", lambda _: available)
    run = make_run(store, model={"width": 64}, training={"batch_size": 12, **training})
    return MemoryCheck(run, CPU, World())


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """Images that are large for the network."""
    return make_store(40, 0, (64, 64), 3)


def test_a_training_that_fits_is_not_changed(large: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for available in (None, UNKNOWN, 10**9):
        assert check(large, available, monkeypatch, accumulation_steps=2).choose_parts() == 2


def test_a_training_that_does_not_fit_ends_with_the_settings_that_do(
    large: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {parts: check(large, None, monkeypatch).needed(parts, False) for parts in (1, 2, 3)}
    available = (needed[2] + needed[3]) // 2
    with pytest.raises(UserError) as raised:
        run_check = check(large, available, monkeypatch)
        run_check.choose_parts()
    message = str(raised.value)
    assert message.startswith(f"Training needs about {needed[1] / 1e9:.1f} GB of memory, but cpu has ")
    first, second = message.split("--params ")[1].split(" or ")
    assert first == f"training.accumulation_steps=3 ({needed[3] / 1e9:.1f} GB)"
    assert second.startswith("training.activation_checkpointing=true")
    for setting in ({"accumulation_steps": 3}, {"activation_checkpointing": True, "accumulation_steps": 2}):
        assert check(large, available, monkeypatch, **setting).choose_parts() == setting["accumulation_steps"]


def test_more_parts_are_chosen_where_that_is_allowed(
    large: ImageStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    available = check(large, None, monkeypatch).needed(6, False)
    assert check(large, available, monkeypatch, out_of_memory="accumulate").choose_parts() == 6
    assert "each batch is computed in 6 parts" in caplog.text
    caplog.clear()
    assert check(large, available, monkeypatch, out_of_memory="try").choose_parts() == 1
    assert "it may run out of memory" in caplog.text


def test_an_estimate_slightly_above_the_memory_is_a_warning(
    large: ImageStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = check(large, None, monkeypatch).needed(1, False)
    assert check(large, int(needed / 1.1), monkeypatch).choose_parts() == 1
    assert "training.accumulation_steps=2" in caplog.text


def test_images_that_are_too_large_at_every_setting(large: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for policy in ("stop", "accumulate"):
        with pytest.raises(UserError, match=r"One image at a time does not fit either: .*images\.size"):
            check(large, 10**6, monkeypatch, out_of_memory=policy).choose_parts()


def test_images_on_the_device_leave_less_memory(large: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replace(check(large, 10**9, monkeypatch), images=10**8).available == 9 * 10**8


def test_the_process_with_the_least_memory_decides(large: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Several(World):
        def max(self, value: Tensor) -> Tensor:
            return torch.maximum(value, torch.tensor(-(10**6)))

    one = check(large, 10**9, monkeypatch)
    assert replace(one, world=Several(0, 2)).available == 10**6
    assert replace(one, world=World()).available == 10**9


def test_a_small_training_is_not_simulated(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_check, "training_memory", None)
    assert MemoryCheck(make_run(store), CPU, World()).choose_parts() == 1


# ---- out of memory


def limit(monkeypatch: pytest.MonkeyPatch, images: int, error: Exception) -> list[int]:
    """Make the gradients of more images fail after their backward pass; return the sizes of all attempts."""
    attempts: list[int] = []
    original = Trainer._gradients

    def gradients(trainer: Trainer, step: int, part: int, batch: Any) -> Tensor:
        attempts.append(len(batch[0]))
        loss = original(trainer, step, part, batch)
        if len(batch[0]) > images:
            raise error
        return loss

    monkeypatch.setattr(Trainer, "_gradients", gradients)
    return attempts


GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_training_that_ran_out_of_memory_equals_one_in_parts(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = {"dropout": 0.2}  # its numbers differ by part
    parts = run_training(make_run(store, model=model, training={"accumulation_steps": 4}), store)
    attempts = limit(monkeypatch, 2, GPU_ERROR)
    allowed = make_run(store, model=model, training={"out_of_memory": "accumulate"})
    recovered = run_training(allowed, store)
    assert attempts[:6] == [8, 4, 2, 2, 2, 2]
    assert attempts[6:] == [2] * (len(attempts) - 6)  # later steps begin with the parts that fit
    assert same(weights(parts), weights(recovered))
    assert caplog.text.count("ran out of memory: each batch is computed in") == 2
    interrupted = run_training(allowed, store, stop_at=4)
    resumed = run_training(allowed, store, resume=interrupted[-1].checkpoint)
    assert same(weights(parts), weights(resumed))


@pytest.mark.parametrize("error", [GPU_ERROR, RuntimeError(MESSAGE), MemoryError()], ids=["GPU", "CPU", "Python"])
def test_running_out_of_memory_ends_with_the_settings_that_need_less(
    error: Exception, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 4, error)
    monkeypatch.setattr(memory_check, "LEAST_GAIN", 0.9999)
    with pytest.raises(UserError, match=r"cpu ran out of memory: .* --params training\.accumulation_steps=2 \("):
        run_training(make_run(store), store)


def test_one_image_at_a_time_that_does_not_fit_is_an_error(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = limit(monkeypatch, 0, GPU_ERROR)
    with pytest.raises(UserError, match="cpu ran out of memory"):
        run_training(make_run(store, training={"out_of_memory": "accumulate"}), store)
    assert attempts == [8, 4, 2, 1]


def test_other_errors_keep_their_traceback(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 4, RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        run_training(make_run(store, training={"out_of_memory": "accumulate"}), store)


def test_a_batch_too_large_for_any_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(ValueError("out"))


@pytest.mark.parametrize(
    ("rows", "parts", "expected"), [(12, 1, 2), (12, 2, 4), (12, 4, 12), (9, 1, 3), (12, 12, None)]
)
def test_the_next_number_of_parts_divides_the_batch(rows: int, parts: int, expected: int | None) -> None:
    assert next_parts(rows, parts) == expected


def test_validation_and_previews_compute_no_more_images_than_a_part(store: ImageStore) -> None:
    run = make_run(store, training={"accumulation_steps": 4})
    trainer = Trainer(run, AugmentedImages(store, run.augmentation), store, CPU)
    sizes: list[int] = []
    trainer.ema.register_forward_hook(lambda network, inputs, output: sizes.append(len(output)))
    trainer.validation_loss()
    assert max(sizes) == 2
    images, _ = trainer.preview()
    assert len(images) == TRAINING.preview_images
    assert max(sizes) == 4  # guidance evaluates the network twice
