"""Stops, divergence, resume plans, and other ways to compute the same training."""

import copy
import math
import platform
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from ddpm_kedro.distributed import World
from ddpm_kedro.errors import DivergedError, UserError
from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.training import loader, loop
from ddpm_kedro.training.loader import DevicePixels, StepPixels
from ddpm_kedro.training.loop import Report, train
from ddpm_kedro.training.resume_plan import ResumePlan
from ddpm_kedro.training.run import Checkpoint, Run
from ddpm_kedro.training.trainer import Trainer
from tests.conftest import TRAINING, changed
from tests.synchronisations import Synchronisations
from tests.training.test_loader import read
from tests.training.test_loop import make_run, run_training, same, weights
from tests.training.test_step import make_trainer

MEASURED = "images_per_second"  # the only value of the history that is not reproducible


def figures(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != MEASURED} for row in history]


def at_end(reports: list[Report]) -> Checkpoint:
    assert reports[-1].checkpoint is not None
    return reports[-1].checkpoint


class TestStops:
    @pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 7])
    def test_a_resumed_training_has_the_history_of_an_uninterrupted_one(self, stop_at: int, store: ImageStore) -> None:
        run = make_run(store, training={"report_interval": 24}, model={"dropout": 0.1})
        whole, stopped = run_training(run, store), run_training(run, store, stop_at=stop_at)
        resumed = run_training(run, store, resume=at_end(stopped))
        assert figures(resumed[-1].history) == figures(whole[-1].history)
        assert same(weights(resumed), weights(whole))
        assert [report.checkpoint is not None for report in whole[-len(resumed) :]] == [
            report.checkpoint is not None for report in resumed
        ]

    def test_images_per_second_include_the_time_before_a_stop(self, store: ImageStore) -> None:
        meter = loop.Meter(World(), 8, {"steps": 3, "loss": 3.0, "norm": 6.0, "seconds": 1000.0})
        meter.add(torch.tensor(1.0), torch.tensor(2.0), 0.1)
        row = meter.row(32)
        assert (row["loss"], row["gradient_norm"]) == (1.0, 2.0)
        assert row[MEASURED] == pytest.approx(32 / 1000, rel=0.01)

    def test_a_stop_is_noticed_between_the_parts_of_a_batch(self, store: ImageStore) -> None:
        run = make_run(store, training={"accumulation_steps": 4})
        stopped = run_training(run, store, stop_at=6)  # checked once per part: in the second step
        assert stopped[-1].images_seen == 8
        resumed = run_training(run, store, resume=at_end(stopped))
        assert same(weights(resumed), weights(run_training(run, store)))

    def test_an_abandoned_step_changes_nothing(self, store: ImageStore) -> None:
        trainer = make_trainer(store, training={"accumulation_steps": 2})
        before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
        assert trainer.step(0, trainer.pixels[0], lambda: True) is None
        assert same(before, trainer.network.state_dict())
        assert not trainer.optimizer.state


class TestDivergence:
    @pytest.mark.parametrize("watched", ["loss", "gradient"])
    def test_a_loss_or_gradient_that_is_not_finite_raises_with_its_batch(
        self, watched: str, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = make_run(store, training={"checkpoint_interval": 16, "report_interval": 16})
        whole = Trainer.step

        def step(self: Trainer, number: int, *rest: Any) -> Any:
            loss, norm, lr = whole(self, number, *rest)
            bad = torch.tensor(math.nan)
            return (bad, norm, lr) if number == 4 and watched == "loss" else (loss, bad if number == 4 else norm, lr)

        monkeypatch.setattr(Trainer, "step", step)
        reports, images = list[Report](), AugmentedImages(store, run.augmentation)
        with pytest.raises(DivergedError) as caught:
            for report in train(run, images, store, choose_hardware("cpu", "fp32"), None, lambda: False):
                reports.append(report)
        what = "The loss is nan" if watched == "loss" else "The gradient is not finite"
        assert f"{what} in step 5, after 32 images, learning rate" in str(caught.value)
        assert "The last checkpoint: 32 images" in str(caught.value)
        assert reports[-1].images_seen == 32
        x0, timesteps, noise, labels, _ = make_trainer(store).batch(4, StepPixels(store, TRAINING.seed, 8)[4])
        batch = caught.value.batch
        assert int(batch["step"]) == 4
        for name, expected in {"images": x0, "timesteps": timesteps, "noise": noise, "labels": labels}.items():
            assert torch.equal(batch[name], expected)

    def test_no_checkpoint_is_made_after_divergence_on_a_device_that_is_rarely_checked(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = loop.TrainingState(make_trainer(store), None)
        state.trainer.device = torch.device("meta")  # not a CPU
        for step in range(1, 4):
            state.add(step, torch.tensor(math.inf if step >= 2 else 1.0), torch.tensor(1.0), 0.1)
        for attempt in (state.stop, lambda: state.report(False)):
            with monkeypatch.context() as patch:
                patch.setattr(state.trainer, "device", torch.device("cpu"))
                with pytest.raises(DivergedError, match=r"The loss is inf in step 3"):
                    attempt()

    def test_counting_a_step_does_not_wait_for_the_device(self, store: ImageStore) -> None:
        trainer = make_trainer(store)
        state = loop.TrainingState(trainer, None)
        trainer.device = torch.device("meta")
        with Synchronisations() as seen:
            state.add(1, torch.tensor(1.0), torch.tensor(1.0), 0.1)
        assert seen.count == 0

    def test_overflowing_fp16_gradients_are_left_to_the_scaler(self, store: ImageStore) -> None:
        state = loop.TrainingState(make_trainer(store, choose_hardware("cpu", "fp16")), None)
        state.add(0, torch.tensor(1.0), torch.tensor(math.inf), 0.1)
        with pytest.raises(DivergedError):
            state.add(1, torch.tensor(math.nan), torch.tensor(1.0), 0.1)

    def test_the_best_checkpoint_has_the_lowest_validation_loss(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = iter([0.5, 0.3, 0.4, 0.2])
        monkeypatch.setattr(Trainer, "validation_loss", lambda _: next(losses))
        run = make_run(store, training={"report_interval": 16, "checkpoint_interval": 16})
        first = run_training(run, store, stop_at=5)
        assert [report.best for report in first] == [True, True, False]
        assert [report.best for report in run_training(run, store, resume=at_end(first))] == [False, True]


class TestResumePlan:
    @pytest.fixture
    def run(self, store: ImageStore) -> Run:
        return make_run(store)

    @pytest.fixture
    def checkpoint(self, run: Run, store: ImageStore) -> Checkpoint:
        return at_end(run_training(run, store, stop_at=4))

    def test_without_a_checkpoint_a_run_starts_from_scratch_unless_resume_is_required(self, run: Run) -> None:
        assert ResumePlan.of(run, None).checkpoint is None
        with pytest.raises(UserError, match=r"resume = require, but there is no checkpoint"):
            ResumePlan.of(with_training(run, resume="require"), None)

    def test_the_same_run_resumes_unless_resume_is_never(self, run: Run, checkpoint: Checkpoint) -> None:
        for resume in ("auto", "require"):
            plan = ResumePlan.of(with_training(run, resume=resume), checkpoint)
            assert plan.checkpoint is checkpoint
            assert plan.other is None
        assert ResumePlan.of(with_training(run, resume="never"), checkpoint).checkpoint is None

    @pytest.mark.parametrize(
        "groups",
        [
            {"optimizer": {"lr": 2e-3}},
            {"training": {"seed": 1}},
            {"training": {"batch_size": 4}},
            {"training": {"num_images": 16}},  # less than the checkpoint has seen
            {"training": {"num_images": 128, "seed": 1}},
            {"diffusion": {"target": "x0"}},
            {"augmentation": {"horizontal_flip": True}},
            {"augmentation": {"non_leaking": 0.2}},
            {"training": {"ema_half_life": 30}},
        ],
    )
    def test_changes_that_affect_the_result_start_from_scratch(
        self, groups: dict[str, Any], checkpoint: Checkpoint, store: ImageStore
    ) -> None:
        run = make_run(store, **groups)
        plan = ResumePlan.of(run, checkpoint)
        assert plan.checkpoint is None
        assert plan.run == run
        assert plan.other == checkpoint.run_id
        assert len(plan.changed) == sum(len(group) for group in groups.values())

    def test_other_images_start_from_scratch(self, run: Run, checkpoint: Checkpoint) -> None:
        plan = ResumePlan.of(replace(run, training_images="others"), checkpoint)
        assert plan.checkpoint is None
        assert plan.changed == (f"training images: {run.training_images} → others",)

    def test_a_longer_training_with_a_constant_learning_rate_equals_an_uninterrupted_one(
        self, store: ImageStore
    ) -> None:
        constant = {"lr_schedule": "constant"}
        short, long = (
            make_run(store, optimizer=constant),
            make_run(store, optimizer=constant, training={"num_images": 128}),
        )
        ended = at_end(run_training(short, store))
        plan = ResumePlan.of(long, ended)
        assert plan.checkpoint is ended
        assert not plan.finished
        assert plan.run.run_id == long.run_id != short.run_id
        longer, whole = run_training(plan.run, store, resume=ended), run_training(long, store)
        assert same(weights(longer), weights(whole))
        assert figures(longer[-1].history) == figures(whole[-1].history)
        assert at_end(longer).run_id == at_end(whole).run_id
        assert at_end(longer).record.tracking_id == short.run_id

    def test_a_longer_training_after_the_learning_rate_fell_has_its_own_run_id(
        self, run: Run, store: ImageStore
    ) -> None:
        ended = at_end(run_training(run, store))
        long = with_training(run, num_images=128)
        plan = ResumePlan.of(long, ended)
        assert plan.checkpoint is ended
        assert plan.run.continued_from == f"{run.run_id}@64"
        assert plan.run.run_id not in {run.run_id, long.run_id}
        longer = at_end(run_training(plan.run, store, resume=ended))
        again = ResumePlan.of(long, longer)  # the same command once more
        assert again.finished
        assert again.other is None

    def test_require_resumes_with_any_changes_and_lists_them(self, run: Run, checkpoint: Checkpoint) -> None:
        other = with_training(replace(run, optimizer=changed(run.optimizer, lr=5e-4)), resume="require")
        plan = ResumePlan.of(other, checkpoint)
        assert plan.checkpoint is checkpoint
        assert plan.changed == ("optimizer.lr: 0.001 → 0.0005",)
        assert plan.run.continued_from == f"{run.run_id}@32"

    @pytest.mark.parametrize(
        ("groups", "words"),
        [
            ({"model": {"width": 16}}, "model.width: 8 → 16"),
            ({"optimizer": {"name": "sgd", "betas": None, "momentum": 0.9}}, "optimizer.name: adam → sgd"),
            ({"augmentation": {"non_leaking": 0.2}}, "augmentation.non_leaking: 0.0 → 0.2"),
        ],
    )
    def test_require_rejects_another_network_or_optimizer(
        self, groups: dict[str, Any], words: str, checkpoint: Checkpoint, store: ImageStore
    ) -> None:
        groups = groups | {"training": {"resume": "require"}}
        with pytest.raises(UserError, match=words):
            ResumePlan.of(make_run(store, **groups), checkpoint)

    def test_a_checkpoint_with_a_decay_per_step_is_another_run_that_can_be_continued_and_exported(
        self, run: Run, checkpoint: Checkpoint, store: ImageStore
    ) -> None:
        parameters = copy.deepcopy(checkpoint.record.made_by.parameters)
        del parameters["augmentation"]["non_leaking"], parameters["training"]["ema_rampup_ratio"]
        del parameters["training"]["ema_half_life"]
        parameters["training"]["ema_decay"] = 0.99
        made_by = replace(checkpoint.record.made_by, parameters=parameters)
        earlier = replace(checkpoint, record=replace(checkpoint.record, made_by=made_by))
        plan = ResumePlan.of(run, earlier)
        assert plan.checkpoint is None
        assert "training.ema_decay: 0.99 → nothing" in plan.changed
        assert "training.ema_half_life: nothing → 20.0" in plan.changed
        required = ResumePlan.of(with_training(run, resume="require"), earlier)
        assert required.checkpoint is earlier
        assert run_training(required.run, store, resume=earlier)[-1].images_seen == 64
        model = TrainedModel.from_config(earlier.record.as_dict() | {"images_seen": 32}, earlier.ema)
        assert same(model.network.state_dict(), earlier.ema)

    def test_changes_that_do_not_affect_the_result_resume(self, run: Run, checkpoint: Checkpoint) -> None:
        quiet = with_training(run, report_interval=8, loader_workers=3, device="auto", accumulation_steps=2)
        assert ResumePlan.of(quiet, checkpoint).checkpoint is checkpoint


def with_training(run: Run, **values: Any) -> Run:
    return replace(run, training=changed(run.training, **values))


class OtherLayout(Hardware):
    memory_format = torch.contiguous_format


class TestWaysToCompute:
    def test_a_batch_in_parts_has_the_gradients_of_the_whole(self, store: ImageStore) -> None:
        whole, parts = (make_trainer(store, training={"accumulation_steps": n}) for n in (1, 4))
        first, second = (trainer.step(0, trainer.pixels[0]) for trainer in (whole, parts))
        assert float(second[0]) == pytest.approx(float(first[0]), rel=1e-5)
        for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)

    def test_every_part_of_a_batch_has_its_own_dropout(self, store: ImageStore) -> None:
        trainer = make_trainer(store, model={"dropout": 0.5}, training={"accumulation_steps": 2})
        batch = tuple(t if t is None else t[:4] for t in trainer.batch(0, trainer.pixels[0]))
        torch.nn.init.normal_(trainer.network.conv_out.weight)
        torch.nn.init.normal_(trainer.network.mid_block.resnets[0].conv2.weight)
        losses = [float(trainer._gradients(0, part, batch)) for part in (0, 1, 0)]
        assert losses[0] == losses[2] != losses[1]

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_activation_checkpointing_gives_equal_weights(self, precision: Any, store: ImageStore) -> None:
        plain, twice = (
            make_run(store, model={"dropout": 0.2}, training={"activation_checkpointing": flag})
            for flag in (False, True)
        )
        assert plain.run_id == twice.run_id
        first, second = (run_training(run, store, precision=precision) for run in (plain, twice))
        assert same(weights(first), weights(second))

    def test_activation_checkpointing_keeps_less_for_the_backward_pass(self, store: ImageStore) -> None:
        kept = []
        for flag in (False, True):
            trainer = make_trainer(store, training={"activation_checkpointing": flag}, model={"blocks_per_level": 2})
            sizes: list[int] = []

            def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
                sizes.append(tensor.nbytes)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                trainer.network(torch.randn(4, 1, 8, 8), torch.arange(4), torch.zeros(4, dtype=torch.int64)).sum()
            kept.append(sum(sizes))
        assert kept[1] < kept[0] / 2

    def test_images_on_a_device_are_read_as_from_the_store(
        self, store: ImageStore, device: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(loader.FREE_MEMORY, device.type, lambda: 10 * store.images.nbytes)
        monkeypatch.setattr(loader, "COPIED_AT_ONCE", 7)
        store.images.setflags(write=False)  # like a memory-mapped store's, about which torch warns once per process
        torch.set_warn_always(True)
        with warnings.catch_warnings(action="error"):
            batches = list(read(store, TRAINING, range(3), device.type))
        torch.set_warn_always(False)
        assert all(batch.device.type == device.type for batch in batches)
        expected = StepPixels(store, TRAINING.seed, TRAINING.batch_size)
        assert all(torch.equal(batch.cpu(), expected[step]) for step, batch in enumerate(batches))

    @pytest.mark.parametrize(("times", "kept"), [(3, False), (5, True)])
    def test_images_stay_on_the_device_only_if_they_leave_room(
        self, times: int, kept: bool, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(loader.FREE_MEMORY, "cpu", lambda: times * store.images.nbytes)
        copies: list[Any] = []
        monkeypatch.setattr(loader, "DevicePixels", lambda *args: copies.append(args) or DevicePixels(*args))
        list(read(store, TRAINING, range(2)))
        assert bool(copies) == kept
        list(read(store, changed(TRAINING, loader_workers=1), range(2)))
        assert len(copies) == kept  # loader workers read from the store

    def test_a_training_resumes_with_another_memory_format(self, store: ImageStore) -> None:
        """As between a GPU, or float32, and bfloat16 on a CPU: the optimizer's state must follow the weights."""
        channels_last = choose_hardware("cpu", "fp32")
        assert channels_last.memory_format == torch.channels_last
        contiguous = OtherLayout(channels_last.device, "fp32", "")
        run = make_run(store)
        checkpoint = at_end(run_training(run, store, stop_at=4))
        images, trained = AugmentedImages(store, run.augmentation), []
        for hardware in (channels_last, contiguous):
            reports = list(train(run, images, store, hardware, checkpoint, lambda: False))
            trained.append(weights(reports))
        assert trained[1]["conv_in.weight"].is_contiguous()
        for name, tensor in trained[0].items():
            torch.testing.assert_close(trained[1][name], tensor, rtol=0, atol=3e-4)  # 1.2e-3 if it does not

    def test_a_batch_that_parts_do_not_divide_is_rejected(self) -> None:
        with pytest.raises(ValueError, match=r"accumulation_steps = 3 does not divide batch_size = 8"):
            TRAINING.model_validate(TRAINING.model_dump() | {"accumulation_steps": 3})

    @pytest.mark.parametrize("compile_mode", ["default"])
    def test_the_network_is_compiled_in_the_requested_mode(
        self, compile_mode: Any, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[Any] = []
        compiler = torch.compile

        def spy(function: Any, **options: Any) -> Any:
            calls.append(options)
            return compiler(function, backend="aot_eager")

        monkeypatch.setattr(torch, "compile", spy)
        compiled = make_trainer(store, training={"compile": compile_mode})
        plain = make_trainer(store)
        losses = [float(trainer.step(0, trainer.pixels[0])[0]) for trainer in (compiled, plain)]
        assert calls == [{"mode": compile_mode}]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert set(compiled.network.state_dict()) == set(plain.network.state_dict())


class TestDistributed:
    @pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 1), (2, 2), (4, 2), (8, 1)])
    def test_the_rows_of_all_processes_are_the_batch(self, count: int, parts: int) -> None:
        rows = [World(rank, count).rows(8, parts) for rank in range(count)]
        assert sorted(torch.cat(rows).tolist()) == list(range(8))
        for part in range(parts):  # each part is one slice of the batch, on all processes together
            size = 8 // parts
            slices = torch.cat([own.chunk(parts)[part] for own in rows])
            assert slices.tolist() == list(range(part * size, (part + 1) * size))

    def test_gradients_of_a_small_network_are_exchanged_in_one_bucket_on_a_cpu(self, store: ImageStore) -> None:
        run = make_run(store, model={"width": 64})
        exchanged: list[int] = []

        def hook(_: None, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
            exchanged.append(bucket.buffer().nbytes)
            done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            images, hardware = AugmentedImages(store, run.augmentation), choose_hardware("cpu", "fp32")
            trainer = Trainer(run, images, store, hardware, World(0, 2))  # the other process is not needed
            trainer.distributed.register_comm_hook(None, hook)
            for step in range(2):  # torch divides buckets again after the first step
                trainer.step(step, trainer.pixels[step])
        finally:
            torch.distributed.destroy_process_group()
        assert exchanged == [sum(weight.nbytes for weight in trainer.network.parameters())] * 2
        assert exchanged[0] > 2**20

    def test_each_process_computes_its_rows_of_the_global_batch(self, store: ImageStore) -> None:
        augmentation = {"horizontal_flip": True, "crop_padding": 2, "non_leaking": 0.4}
        run = make_run(store, augmentation=augmentation)
        images = AugmentedImages(store, run.augmentation)
        single = make_trainer(store, augmentation=augmentation)
        expected = single.batch(3, single.pixels[3])
        for rank in range(2):
            rows = World(rank, 2).rows(8, 1)
            pixels = StepPixels(store, TRAINING.seed, 8, rows)
            batch = Trainer(run, images, store, choose_hardware("cpu", "fp32")).batch(3, pixels[3], rows)
            assert all(torch.equal(ours, whole[rows]) for ours, whole in zip(batch, expected, strict=True))

    def test_more_processes_than_validation_or_preview_images(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(World, "_reduce", lambda self, value, operation: value)
        monkeypatch.setattr(World, "_gather_objects", lambda self, thing: [thing])
        run = make_run(store, training={"validation_images": 1, "preview_images": 1})
        images, hardware = AugmentedImages(store, run.augmentation), choose_hardware("cpu", "fp32")
        trainer = Trainer(run, images, store, hardware)
        losses, previews = [], []
        for rank in range(2):
            trainer.world = World(rank, 2)
            losses.append(trainer.validation_loss())
            previews.append(len(trainer.preview()[0]))
        assert losses[0] > losses[1] == 0
        assert previews == [1, 0]

    def test_a_batch_that_processes_do_not_divide_is_rejected(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(World, "current", classmethod(lambda cls: cls(0, 3)))
        with pytest.raises(UserError, match=r"batch_size = 8 cannot be divided among 3 processes; .* multiple of 3"):
            run_training(make_run(store), store)


def test_freed_memory_is_reused_without_the_kernel() -> None:
    """In a process of its own: it is for good."""
    code = (
        "import resource, torch; from ddpm_kedro.hardware import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): torch.ones(2**24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); first = faults(); keep_freed_memory(); faults(); print(first, faults())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < (0.05 if platform.libc_ver()[0] == "glibc" else 1.5) * before  # others have no such habit
