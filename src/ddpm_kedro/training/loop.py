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
from ddpm_kedro.progress import progress_bar
from ddpm_kedro.training.run import Checkpoint, Row, Run
from ddpm_kedro.training.trainer import Trainer

STEPS_UNWATCHED = 32  # between two looks for a loss that is no number, where a look waits: for a GPU, or for others


@dataclass(frozen=True)
class Report:
    """What a run has to show at an interval.

    Attributes:
        images_seen: so far.
        history: every row so far.
        preview: (N, H, W, C) uint8 samples of the averaged weights, or None.
        preview_labels: (N,) int64, or None.
        checkpoint: where a checkpoint is due, or None.
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
    """Train from the beginning or from a checkpoint, and report at every interval.

    The last report always has a checkpoint; that of a run asked to stop has nothing else that is new. Where several
    processes train, each calls this with equal arguments, and a stop that one of them is asked for stops all.

    Raises:
        UserError: for a batch larger than the data or that the processes cannot divide, and a loss that is not a number
            any more.
    """
    p, processes = run.training, World.current()
    _check(run, len(images), resume, processes)
    trainer = Trainer(run, images, holdout, hardware, processes)
    standing = TrainingState(trainer, resume)
    steps = range(standing.images_seen // p.batch_size, run.num_steps)

    def stopping() -> bool:
        return processes.any(should_stop())

    if standing.meter.steps and standing.crossed(p.report_interval):  # where the stop came it was due, too
        yield standing.report(finished=False)
    with progress_bar(standing.images_seen, run.num_images, processes.rank == 0) as show:
        for step, pixels in zip(steps, trainer.read(steps), strict=True):
            made = trainer.step(step, pixels, stopping)
            if made is not None:
                standing.add(step, *made)
                show(standing.images_seen, standing.meter.text)
            finished = made is not None and step == steps[-1]
            if made is None or (not finished and stopping()):  # at once: whoever stops it does not wait for previews
                yield standing.stop()
                return
            if finished or standing.crossed(p.report_interval):
                yield standing.report(finished)


class TrainingState:
    """Where a training stands, and what it has to show."""

    def __init__(self, trainer: Trainer, resume: Checkpoint | None) -> None:
        self.trainer = trainer
        self.images_seen, self.history, self.best = 0, list[Row](), math.inf
        if resume is not None:
            trainer.restore(resume)
            self.images_seen, self.history = resume.images_seen, list(resume.history)
            self.best = resume.best_validation_loss
        self.meter = Meter(trainer.processes, trainer.run.training.batch_size, None if resume is None else resume.meter)
        self.saved = self.images_seen
        self.first_bad = torch.tensor(-1, device=trainer.device)
        self.bad_loss = torch.tensor(0.0, device=trainer.device)

    def add(self, step: int, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Count a step."""
        self.images_seen = (step + 1) * self.trainer.run.training.batch_size
        self.meter.add(loss, norm, lr)
        # The scaler of fp16 skips steps whose gradients overflow, and goes on with a smaller scale.
        watched = loss if self.trainer.scaler.is_enabled() else loss + norm
        new = (self.first_bad < 0) & ~watched.isfinite()
        self.first_bad = torch.where(new, step, self.first_bad)
        self.bad_loss = torch.where(new, loss, self.bad_loss)
        at_hand = self.trainer.device.type == "cpu" and self.trainer.processes.count == 1
        if at_hand or step % STEPS_UNWATCHED == 0:
            self.check()

    def check(self) -> None:
        """Raise DivergedError where a loss or a gradient was not finite."""
        step = int(self.trainer.processes.largest(self.first_bad))
        if step < 0:
            return
        loss = float(self.bad_loss)
        what = "gradient is not finite" if math.isfinite(loss) else f"loss is {loss}"
        seen = step * self.trainer.run.training.batch_size
        saved = f"The last checkpoint is of {self.saved:,} images" if self.saved else "There is no checkpoint yet"
        raise DivergedError(
            f"The {what} in step {step + 1:,}, after {seen:,} images, learning rate {self.meter.lr:.2e}. "
            f"{saved}. Lower optimizer.lr, or use training.precision=fp32.",
            {"step": torch.tensor(step), **self.trainer.whole_batch(step)},
        )

    def crossed(self, interval: int) -> bool:
        """Whether the latest step passed a multiple of so many images."""
        return self.images_seen // interval > (self.images_seen - self.trainer.run.training.batch_size) // interval

    def report(self, finished: bool) -> Report:
        """A row of the history, a preview, and a checkpoint where one is due."""
        self.check()
        p, rows = self.trainer.run.training, self.history
        loss = self.trainer.validation_loss()
        before = rows[-1]["images_seen"] if rows else 0
        due = finished or self.images_seen // p.checkpoint_interval > before // p.checkpoint_interval
        self.history = [*rows, self.meter.row(self.images_seen) | {"validation_loss": loss}]
        self.meter.restart()
        better = due and loss < self.best
        self.best = loss if better else self.best
        preview = self.trainer.preview()
        return Report(self.images_seen, self.history, *preview, self._checkpoint() if due else None, better)

    def stop(self) -> Report:
        """A checkpoint, and nothing else that is new."""
        self.check()
        return Report(self.images_seen, self.history, None, None, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        self.saved = self.images_seen
        return self.trainer.checkpoint(self.images_seen, self.history, self.meter.state(), self.best)


class Meter:
    """Sums since the last report, also across a stop. Nothing is read from the device before it is asked for."""

    def __init__(self, processes: World, batch_size: int, state: Mapping[str, float] | None = None) -> None:
        self.processes, self.batch_size, self.text = processes, batch_size, ""
        self.restart(state)

    def restart(self, state: Mapping[str, float] | None = None) -> None:
        """Begin a new interval now, or go on with one."""
        begun = {"steps": 0, "lr": 0.0, "loss": 0.0, "norm": 0.0, "seconds": 0.0, **(state or {})}
        self.steps, self.lr = int(begun["steps"]), begun["lr"]
        self.loss, self.norm = torch.tensor(begun["loss"]), torch.tensor(begun["norm"])
        self.start = time.perf_counter() - begun["seconds"]

    def add(self, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Count a step."""
        self.steps, self.lr = self.steps + 1, lr
        self.loss, self.norm = loss + self.loss, norm + self.norm  # a zero of the CPU adds to any device

    def state(self) -> Row:
        """The sums, alike in all processes."""
        loss, norm, seconds = float(self.processes.mean(self.loss)), float(self.norm), time.perf_counter() - self.start
        return {"steps": self.steps, "lr": self.lr, "loss": loss, "norm": norm, "seconds": seconds}

    def row(self, images_seen: int) -> Row:
        """The interval as one row of the history."""
        sums = self.state()
        row = {
            "images_seen": images_seen,
            "loss": sums["loss"] / self.steps,
            "learning_rate": self.lr,
            "gradient_norm": sums["norm"] / self.steps,
            "images_per_second": self.steps * self.batch_size / sums["seconds"],
        }
        self.text = f"loss {row['loss']:.4f}  lr {self.lr:.1e}  {row['images_per_second']:.0f}/s"
        return row


def _check(run: Run, images: int, resume: Checkpoint | None, processes: World) -> None:
    p = run.training
    if p.batch_size > images:
        raise UserError(f"training.batch_size = {p.batch_size} is more than the {images} training images.")
    if p.batch_size % (processes.count * p.accumulation_steps):
        parts = f" in {p.accumulation_steps} parts (training.accumulation_steps)" if p.accumulation_steps > 1 else ""
        raise UserError(
            f"training.batch_size = {p.batch_size} cannot be divided among {processes.count} processes{parts}; "
            f"choose a multiple of {processes.count * p.accumulation_steps}."
        )
    # Data folders of several hosts that are not one and the same would lead to several trainings.
    if not processes.agree((run.run_id, 0 if resume is None else resume.images_seen)):
        raise UserError(
            "The processes do not see the same images and the same checkpoint. The data folder must lie on storage "
            "that all hosts share, and all must be given the same parameters."
        )
