"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_kedro.distributed import World
from ddpm_kedro.errors import DivergedError, UserError
from ddpm_kedro.hardware import Hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.progress import training_progress
from ddpm_kedro.training.loader import bytes_on_device
from ddpm_kedro.training.memory_check import MemoryCheck
from ddpm_kedro.training.run import Checkpoint, Row, Run
from ddpm_kedro.training.trainer import Trainer

CHECK_INTERVAL = 32  # steps: with a GPU or several processes a check waits, so NaN and infinity are checked rarely


@dataclass(frozen=True)
class Report:
    """The outputs of a run at a report interval.

    Attributes:
        images_seen: number of images seen so far.
        history: all rows so far.
        preview: (N, H, W, C) uint8 samples of the EMA weights, or None.
        preview_labels: classes of the preview, (N,) int64, or None.
        checkpoint: the state of the run if a checkpoint is due, or None.
        best: whether the checkpoint has the lowest validation loss so far.
    """

    images_seen: int
    history: list[Row]
    preview: Tensor | None
    preview_labels: Tensor | None
    checkpoint: Checkpoint | None
    best: bool = False


def train(
    run: Run,
    images: AugmentedImages,
    holdout: ImageStore,
    hardware: Hardware,
    resume: Checkpoint | None,
    should_stop: Callable[[], bool],
) -> Iterator[Report]:
    """Train from scratch or from a checkpoint, and yield a report at every interval.

    The last report always has a checkpoint. If the run was stopped, only its checkpoint is new. In
    distributed training every process calls this with equal arguments, and a stop of one process stops all.

    Raises:
        UserError: if the batch is larger than the data, if the processes cannot divide it, or if the device has too
            little memory.
        DivergedError: if a loss or gradient is not finite.
    """
    world = World.current()
    _check(run, len(images), resume, world)
    memory = MemoryCheck(run, hardware, world, bytes_on_device(images.store, run.training, hardware.device))
    parts = memory.choose_parts()
    with memory.explain():
        yield from _train(Trainer(run, images, holdout, hardware, world, parts), resume, should_stop)


def _train(trainer: Trainer, resume: Checkpoint | None, should_stop: Callable[[], bool]) -> Iterator[Report]:
    run, world = trainer.run, trainer.world
    p = run.training
    state = TrainingState(trainer, resume)
    steps = range(state.images_seen // p.batch_size, run.num_steps)

    def any_should_stop() -> bool:
        return world.any(should_stop())

    if state.meter.steps and state.has_passed(p.report_interval):  # the run was stopped when a report was due
        yield state.report(finished=False)
    with training_progress(state.images_seen, run.num_images, shown=world.rank == 0) as update:
        for step, pixels in zip(steps, trainer.read(steps), strict=True):
            result = trainer.step(step, pixels, any_should_stop)
            if result is not None:
                state.add(step, *result)
                update(state.images_seen, state.meter.text)
            finished = result is not None and step == steps[-1]
            if result is None or (not finished and any_should_stop()):  # a stop does not wait for previews
                yield state.stop()
                return
            if finished or state.has_passed(p.report_interval):
                yield state.report(finished)


class TrainingState:
    """The progress of a training: images seen, history, and whether it has diverged."""

    def __init__(self, trainer: Trainer, resume: Checkpoint | None) -> None:
        self.trainer = trainer
        self.batch_size = trainer.run.training.batch_size
        self.images_seen, self.history, self.best = 0, list[Row](), math.inf
        if resume is not None:
            trainer.restore(resume)
            self.images_seen, self.history = resume.images_seen, list(resume.history)
            self.best = resume.best_validation_loss
        self.meter = Meter(trainer.world, self.batch_size, None if resume is None else resume.meter)
        self.saved = self.images_seen
        self.first_bad = torch.tensor(-1, device=trainer.device)
        self.bad_loss = torch.tensor(0.0, device=trainer.device)

    def add(self, step: int, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Count a step."""
        self.images_seen = (step + 1) * self.batch_size
        self.meter.add(loss, norm, lr)
        # The scaler of fp16 skips steps whose gradients overflow, and continues with a smaller scale.
        checked = loss if self.trainer.scaler.is_enabled() else loss + norm
        new = (self.first_bad < 0) & ~checked.isfinite()
        self.first_bad = torch.where(new, step, self.first_bad)
        self.bad_loss = torch.where(new, loss, self.bad_loss)
        costs_nothing = self.trainer.device.type == "cpu" and self.trainer.world.size == 1
        if costs_nothing or step % CHECK_INTERVAL == 0:
            self.check()

    def check(self) -> None:
        """Raise DivergedError if a loss or a gradient was not finite."""
        step = int(self.trainer.world.max(self.first_bad))
        if step < 0:
            return
        loss = float(self.bad_loss)
        problem = "gradient is not finite" if math.isfinite(loss) else f"loss is {loss}"
        saved = f"The last checkpoint: {self.saved:,} images seen" if self.saved else "There is no checkpoint yet"
        raise DivergedError(
            f"The {problem} in step {step + 1:,}, after {step * self.batch_size:,} images, learning rate "
            f"{self.meter.lr:.2e}. {saved}. Lower optimizer.lr, or use training.precision=fp32.",
            {"step": torch.tensor(step), **self.trainer.whole_batch(step)},
        )

    def has_passed(self, interval: int) -> bool:
        """Return whether the latest step passed a multiple of this number of images."""
        return self.images_seen // interval > (self.images_seen - self.batch_size) // interval

    def report(self, finished: bool) -> Report:
        """Add a row to the history; return a report with the history, a preview and, if due, a checkpoint."""
        self.check()
        interval, rows = self.trainer.run.training.checkpoint_interval, self.history
        loss = self.trainer.validation_loss()
        before = rows[-1]["images_seen"] if rows else 0
        due = finished or self.images_seen // interval > before // interval
        self.history = [*rows, self.meter.row(self.images_seen) | {"validation_loss": loss}]
        self.meter.restart()
        better = due and loss < self.best
        self.best = loss if better else self.best
        preview = self.trainer.preview()
        return Report(self.images_seen, self.history, *preview, self._checkpoint() if due else None, better)

    def stop(self) -> Report:
        """Return a report in which only the checkpoint is new."""
        self.check()
        return Report(self.images_seen, self.history, None, None, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        self.saved = self.images_seen
        return self.trainer.checkpoint(self.images_seen, self.history, self.meter.state(), self.best)


class Meter:
    """Sums since the last report, saved in checkpoints. ``add`` does not wait for the device."""

    def __init__(self, world: World, batch_size: int, state: Mapping[str, float] | None = None) -> None:
        self.world, self.batch_size, self.text = world, batch_size, ""
        self.restart(state)

    def restart(self, state: Mapping[str, float] | None = None) -> None:
        """Start a new interval, or resume one."""
        sums = {"steps": 0, "lr": 0.0, "loss": 0.0, "norm": 0.0, "seconds": 0.0, **(state or {})}
        self.steps, self.lr = int(sums["steps"]), sums["lr"]
        self.loss, self.norm = torch.tensor(sums["loss"]), torch.tensor(sums["norm"])
        self.start = time.perf_counter() - sums["seconds"]

    def add(self, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Count a step."""
        self.steps, self.lr = self.steps + 1, lr
        self.loss, self.norm = loss + self.loss, norm + self.norm  # the first sum is a CPU scalar

    def state(self) -> Row:
        """Return the sums, equal in all processes."""
        loss, norm, seconds = float(self.world.mean(self.loss)), float(self.norm), time.perf_counter() - self.start
        return {"steps": self.steps, "lr": self.lr, "loss": loss, "norm": norm, "seconds": seconds}

    def row(self, images_seen: int) -> Row:
        """Return the interval as one row of the history."""
        sums = self.state()
        row = {
            "images_seen": images_seen,
            "loss": sums["loss"] / self.steps,
            "learning_rate": self.lr,
            "gradient_norm": sums["norm"] / self.steps,
            "images_per_second": self.steps * self.batch_size / sums["seconds"],
        }
        self.text = f"loss {row['loss']:.4f}  {row['images_per_second']:.0f}/s"
        return row


def _check(run: Run, num_images: int, resume: Checkpoint | None, world: World) -> None:
    p = run.training
    if p.batch_size > num_images:
        raise UserError(f"training.batch_size = {p.batch_size} is more than the {num_images} training images.")
    if p.batch_size % (world.size * p.accumulation_steps):
        parts = f" in {p.accumulation_steps} parts (training.accumulation_steps)" if p.accumulation_steps > 1 else ""
        raise UserError(
            f"training.batch_size = {p.batch_size} cannot be divided among {world.size} processes{parts}; "
            f"choose a multiple of {world.size * p.accumulation_steps}."
        )
    # Hosts with different data folders would train different models.
    if not world.all_equal((run.run_id, 0 if resume is None else resume.images_seen)):
        raise UserError(
            "The processes do not see the same images and the same checkpoint. The data folder must be on storage "
            "that all hosts share, and all processes must get the same parameters."
        )
