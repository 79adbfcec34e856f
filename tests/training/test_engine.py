"""Guards, resuming by rule, and ways to compute the same with less memory or in other places."""

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

MEASURED = "images_per_second"  # the one figure of the history that is no result


def figures(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != MEASURED} for row in history]


def at_end(reports: list[Report]) -> Checkpoint:
    assert reports[-1].checkpoint is not None
    return reports[-1].checkpoint


class TestStops:
    @pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 7])
    def test_the_history_is_that_of_a_training_never_stopped(self, stop_at: int, store: ImageStore) -> None:
        run = make_run(store, training={"report_interval": 24}, model={"dropout": 0.1})
        whole, stopped = run_training(run, store), run_training(run, store, stop_at=stop_at)
        resumed = run_training(run, store, resume=at_end(stopped))
        assert figures(resumed[-1].history) == figures(whole[-1].history)
        assert same(weights(resumed), weights(whole))
        assert [report.checkpoint is not None for report in whole[-len(resumed) :]] == [
            report.checkpoint is not None for report in resumed
        ]

    def test_the_speed_of_an_interval_counts_the_time_before_a_stop(self, store: ImageStore) -> None:
        meter = loop.Meter(World(), 8, {"steps": 3, "loss": 3.0, "norm": 6.0, "seconds": 1000.0})
        meter.add(torch.tensor(1.0), torch.tensor(2.0), 0.1)
        row = meter.row(32)
        assert (row["loss"], row["gradient_norm"]) == (1.0, 2.0)
        assert row[MEASURED] == pytest.approx(32 / 1000, rel=0.01)

    def test_a_stop_is_noticed_between_the_parts_of_a_batch(self, store: ImageStore) -> None:
        run = make_run(store, training={"accumulation_steps": 4})
        stopped = run_training(run, store, stop_at=6)  # asked once a part: in the second step
        assert stopped[-1].images_seen == 8
        resumed = run_training(run, store, resume=at_end(stopped))
        assert same(weights(resumed), weights(run_training(run, store)))

    def test_a_step_that_is_given_up_changes_nothing(self, store: ImageStore) -> None:
        trainer = make_trainer(store, training={"accumulation_steps": 2})
        before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
        assert trainer.step(0, trainer.pixels[0], lambda: True) is None
        assert same(before, trainer.network.state_dict())
        assert not trainer.optimizer.state


class TestGuards:
    @pytest.mark.parametrize("watched", ["loss", "gradient"])
    def test_what_is_not_finite_ends_it_with_all_that_is_needed_to_find_out_why(
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
        assert "The last checkpoint is of 32 images" in str(caught.value)
        assert reports[-1].images_seen == 32
        x0, timesteps, noise, labels = make_trainer(store).batch(4, StepPixels(store, TRAINING.seed, 8)[4])
        batch = caught.value.batch
        assert int(batch["step"]) == 4
        for name, expected in {"images": x0, "timesteps": timesteps, "noise": noise, "labels": labels}.items():
            assert torch.equal(batch[name], expected)

    def test_no_checkpoint_is_written_after_it_on_a_device_that_is_seldom_looked_at(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = loop.TrainingState(make_trainer(store), None)
        state.trainer.device = torch.device("meta")  # not the CPU
        for step in range(1, 4):
            state.add(step, torch.tensor(math.inf if step >= 2 else 1.0), torch.tensor(1.0), 0.1)
        for attempt in (state.stop, lambda: state.report(False)):
            with monkeypatch.context() as patch:
                patch.setattr(state.trainer, "device", torch.device("cpu"))
                with pytest.raises(DivergedError, match=r"The loss is inf in step 3"):
                    attempt()

    def test_watching_does_not_wait_for_the_device(self, store: ImageStore) -> None:
        trainer = make_trainer(store)
        state = loop.TrainingState(trainer, None)
        trainer.device = torch.device("meta")
        with Synchronisations() as seen:
            state.add(1, torch.tensor(1.0), torch.tensor(1.0), 0.1)
        assert seen.count == 0

    def test_overflowing_gradients_of_fp16_are_the_scalers_business(self, store: ImageStore) -> None:
        state = loop.TrainingState(make_trainer(store, choose_hardware("cpu", "fp16")), None)
        state.add(0, torch.tensor(1.0), torch.tensor(math.inf), 0.1)
        with pytest.raises(DivergedError):
            state.add(1, torch.tensor(math.nan), torch.tensor(1.0), 0.1)

    def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = iter([0.5, 0.3, 0.4, 0.2])
        monkeypatch.setattr(Trainer, "validation_loss", lambda _: next(losses))
        run = make_run(store, training={"report_interval": 16, "checkpoint_interval": 16})
        first = run_training(run, store, stop_at=5)
        assert [report.best for report in first] == [True, True, False]
        assert [report.best for report in run_training(run, store, resume=at_end(first))] == [False, True]


class TestStart:
    @pytest.fixture
    def run(self, store: ImageStore) -> Run:
        return make_run(store)

    @pytest.fixture
    def checkpoint(self, run: Run, store: ImageStore) -> Checkpoint:
        return at_end(run_training(run, store, stop_at=4))

    def test_nothing_there(self, run: Run) -> None:
        assert ResumePlan.of(run, None).checkpoint is None
        with pytest.raises(UserError, match=r"resume = require, but there is no checkpoint"):
            ResumePlan.of(with_training(run, resume="require"), None)

    def test_the_same_run_goes_on_unless_it_never_shall(self, run: Run, checkpoint: Checkpoint) -> None:
        for resume in ("auto", "require"):
            start = ResumePlan.of(with_training(run, resume=resume), checkpoint)
            assert start.checkpoint is checkpoint
            assert start.other is None
        assert ResumePlan.of(with_training(run, resume="never"), checkpoint).checkpoint is None

    @pytest.mark.parametrize(
        "groups",
        [
            {"optimizer": {"lr": 2e-3}},
            {"training": {"seed": 1}},
            {"training": {"batch_size": 4}},
            {"training": {"num_images": 16}},  # less than was seen
            {"training": {"num_images": 128, "seed": 1}},
            {"diffusion": {"target": "x0"}},
            {"augmentation": {"horizontal_flip": True}},
        ],
    )
    def test_what_shapes_the_result_begins_anew(
        self, groups: dict[str, Any], checkpoint: Checkpoint, store: ImageStore
    ) -> None:
        run = make_run(store, **groups)
        start = ResumePlan.of(run, checkpoint)
        assert start.checkpoint is None
        assert start.run == run
        assert start.other == checkpoint.run_id
        assert len(start.changed) == sum(len(group) for group in groups.values())

    def test_other_images_begin_anew(self, run: Run, checkpoint: Checkpoint) -> None:
        start = ResumePlan.of(replace(run, training_images="others"), checkpoint)
        assert start.checkpoint is None
        assert start.changed == (f"training images: {run.training_images} → others",)

    def test_a_longer_training_with_a_constant_learning_rate_is_as_if_never_ended(self, store: ImageStore) -> None:
        constant = {"lr_schedule": "constant"}
        short, long = (
            make_run(store, optimizer=constant),
            make_run(store, optimizer=constant, training={"num_images": 128}),
        )
        ended = at_end(run_training(short, store))
        start = ResumePlan.of(long, ended)
        assert start.checkpoint is ended
        assert not start.finished
        assert start.run.run_id == long.run_id != short.run_id
        longer, whole = run_training(start.run, store, resume=ended), run_training(long, store)
        assert same(weights(longer), weights(whole))
        assert figures(longer[-1].history) == figures(whole[-1].history)
        assert at_end(longer).run_id == at_end(whole).run_id
        assert at_end(longer).record.tracking_id == short.run_id

    def test_a_longer_training_whose_learning_rate_had_fallen_already_has_a_name_of_its_own(
        self, run: Run, store: ImageStore
    ) -> None:
        ended = at_end(run_training(run, store))
        long = with_training(run, num_images=128)
        start = ResumePlan.of(long, ended)
        assert start.checkpoint is ended
        assert start.run.continued_from == f"{run.run_id}@64"
        assert start.run.run_id not in {run.run_id, long.run_id}
        longer = at_end(run_training(start.run, store, resume=ended))
        again = ResumePlan.of(long, longer)  # the same command once more
        assert again.finished
        assert again.other is None

    def test_require_goes_on_whatever_differs_and_says_so(self, run: Run, checkpoint: Checkpoint) -> None:
        other = with_training(replace(run, optimizer=changed(run.optimizer, lr=5e-4)), resume="require")
        start = ResumePlan.of(other, checkpoint)
        assert start.checkpoint is checkpoint
        assert start.changed == ("optimizer.lr: 0.001 → 0.0005",)
        assert start.run.continued_from == f"{run.run_id}@32"

    @pytest.mark.parametrize(
        ("groups", "words"),
        [
            ({"model": {"width": 16}}, "model.width: 8 → 16"),
            ({"optimizer": {"name": "sgd", "betas": None, "momentum": 0.9}}, "optimizer.name: adam → sgd"),
        ],
    )
    def test_require_cannot_go_on_with_another_network_or_optimizer(
        self, groups: dict[str, Any], words: str, checkpoint: Checkpoint, store: ImageStore
    ) -> None:
        groups = groups | {"training": {"resume": "require"}}
        with pytest.raises(UserError, match=words):
            ResumePlan.of(make_run(store, **groups), checkpoint)

    def test_what_does_not_shape_the_result_goes_on(self, run: Run, checkpoint: Checkpoint) -> None:
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

    def test_every_part_has_a_dropout_of_its_own(self, store: ImageStore) -> None:
        trainer = make_trainer(store, model={"dropout": 0.5}, training={"accumulation_steps": 2})
        batch = tuple(t if t is None else t[:4] for t in trainer.batch(0, trainer.pixels[0]))
        torch.nn.init.normal_(trainer.network.conv_out.weight)
        torch.nn.init.normal_(trainer.network.mid_block.resnets[0].conv2.weight)
        losses = [float(trainer._gradients(0, part, batch)) for part in (0, 1, 0)]
        assert losses[0] == losses[2] != losses[1]

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_activations_computed_twice_give_the_same_training(self, precision: Any, store: ImageStore) -> None:
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
        store.images.setflags(write=False)  # as a memory-mapped store's are, of which torch warns once a process
        torch.set_warn_always(True)
        with warnings.catch_warnings(action="error"):
            batches = list(read(store, TRAINING, range(3), device.type))
        torch.set_warn_always(False)
        assert all(batch.device.type == device.type for batch in batches)
        expected = StepPixels(store, TRAINING.seed, TRAINING.batch_size)
        assert all(torch.equal(batch.cpu(), expected[step]) for step, batch in enumerate(batches))

    @pytest.mark.parametrize(("times", "kept"), [(3, False), (5, True)])
    def test_they_stay_there_only_where_they_leave_room(
        self, times: int, kept: bool, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(loader.FREE_MEMORY, "cpu", lambda: times * store.images.nbytes)
        made: list[Any] = []
        monkeypatch.setattr(loader, "DevicePixels", lambda *args: made.append(args) or DevicePixels(*args))
        list(read(store, TRAINING, range(2)))
        assert bool(made) == kept
        list(read(store, changed(TRAINING, loader_workers=1), range(2)))
        assert len(made) == kept  # who asks for workers gets workers

    def test_a_training_goes_on_where_weights_lie_otherwise_in_memory(self, store: ImageStore) -> None:
        """As between a GPU, or float32, and a CPU's bfloat16: the optimizer's state must follow the weights."""
        channels_last = choose_hardware("cpu", "fp32")
        assert channels_last.memory_format == torch.channels_last
        contiguous = OtherLayout(channels_last.device, "fp32", "")
        run = make_run(store)
        checkpoint = at_end(run_training(run, store, stop_at=4))
        images, made = AugmentedImages(store, run.augmentation), []
        for hardware in (channels_last, contiguous):
            reports = list(train(run, images, store, hardware, checkpoint, lambda: False))
            made.append(weights(reports))
        assert made[1]["conv_in.weight"].is_contiguous()
        for name, tensor in made[0].items():
            torch.testing.assert_close(made[1][name], tensor, rtol=0, atol=3e-4)  # 1.2e-3 where it does not

    def test_a_batch_that_parts_do_not_divide(self) -> None:
        with pytest.raises(ValueError, match=r"accumulation_steps = 3 does not divide batch_size = 8"):
            TRAINING.model_validate(TRAINING.model_dump() | {"accumulation_steps": 3})

    @pytest.mark.parametrize("compile_mode", ["default"])
    def test_a_compiled_network_is_compiled_as_asked(
        self, compile_mode: Any, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        compiler = torch.compile

        def spy(function: Any, **options: Any) -> Any:
            asked.append(options)
            return compiler(function, backend="aot_eager")

        monkeypatch.setattr(torch, "compile", spy)
        compiled = make_trainer(store, training={"compile": compile_mode})
        plain = make_trainer(store)
        losses = [float(trainer.step(0, trainer.pixels[0])[0]) for trainer in (compiled, plain)]
        assert asked == [{"mode": compile_mode}]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert set(compiled.network.state_dict()) == set(plain.network.state_dict())


class TestShares:
    @pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 1), (2, 2), (4, 2), (8, 1)])
    def test_the_rows_of_all_processes_are_the_batch(self, count: int, parts: int) -> None:
        rows = [World(rank, count).rows(8, parts) for rank in range(count)]
        assert sorted(torch.cat(rows).tolist()) == list(range(8))
        for part in range(parts):  # each part is one stretch of the batch, whoever computes it
            size = 8 // parts
            together = torch.cat([own.chunk(parts)[part] for own in rows])
            assert together.tolist() == list(range(part * size, (part + 1) * size))

    def test_gradients_of_a_small_network_are_exchanged_at_once_on_a_cpu(self, store: ImageStore) -> None:
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
            trainer = Trainer(run, images, store, hardware, World(0, 2))  # the other half is not needed
            trainer.distributed.register_comm_hook(None, hook)
            for step in range(2):  # after the first step they are divided anew
                trainer.step(step, trainer.pixels[step])
        finally:
            torch.distributed.destroy_process_group()
        assert exchanged == [sum(weight.nbytes for weight in trainer.network.parameters())] * 2
        assert exchanged[0] > 2**20

    def test_each_computes_its_rows_of_the_one_batch(self, store: ImageStore) -> None:
        run = make_run(store, augmentation={"horizontal_flip": True, "crop_padding": 2})
        images = AugmentedImages(store, run.augmentation)
        alone = make_trainer(store, augmentation={"horizontal_flip": True, "crop_padding": 2})
        expected = alone.batch(3, alone.pixels[3])
        for rank in range(2):
            rows = World(rank, 2).rows(8, 1)
            pixels = StepPixels(store, TRAINING.seed, 8, rows)
            batch = Trainer(run, images, store, choose_hardware("cpu", "fp32")).batch(3, pixels[3], rows)
            assert all(torch.equal(ours, whole[rows]) for ours, whole in zip(batch, expected, strict=True))

    def test_more_processes_than_images_to_validate_or_to_draw(
        self, store: ImageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(World, "_reduce", lambda self, value, operation: value)
        monkeypatch.setattr(World, "_gather_objects", lambda self, thing: [thing])
        run = make_run(store, training={"validation_images": 1, "preview_images": 1})
        images, hardware = AugmentedImages(store, run.augmentation), choose_hardware("cpu", "fp32")
        trainer = Trainer(run, images, store, hardware)
        losses, drawn = [], []
        for rank in range(2):
            trainer.world = World(rank, 2)
            losses.append(trainer.validation_loss())
            drawn.append(len(trainer.preview()[0]))
        assert losses[0] > losses[1] == 0
        assert drawn == [1, 0]

    def test_a_batch_that_processes_do_not_divide(self, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(World, "current", classmethod(lambda cls: cls(0, 3)))
        with pytest.raises(UserError, match=r"batch_size = 8 cannot be divided among 3 processes; .* multiple of 3"):
            run_training(make_run(store), store)


def test_memory_that_was_freed_is_used_again_without_the_kernel() -> None:
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
