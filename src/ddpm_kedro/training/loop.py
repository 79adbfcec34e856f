"""The training loop."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_kedro.diffusion import TARGETS, SamplingPlan, diffusion_loss, draw_images, generator_for, make_schedule
from ddpm_kedro.images.augmentation import AugmentedImages, read_pixels, to_float, to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import UNet
from ddpm_kedro.parameters import DivergedError, UserError
from ddpm_kedro.training.hardware import Hardware
from ddpm_kedro.training.loader import read_steps
from ddpm_kedro.training.optimizers import OPTIMIZERS, learning_rate, update_average
from ddpm_kedro.training.progress import progress_bar
from ddpm_kedro.training.randomness import Stream, augmentation_generator, batch_indices, seeded
from ddpm_kedro.training.run import Checkpoint, Row, Run


@dataclass(frozen=True)
class Report:
    """What a run has to show at an interval.

    Attributes:
        images_seen: so far.
        history: every row so far.
        preview: (N, H, W, C) uint8 samples of the averaged weights, or None.
        preview_labels: (N,) int64, or None.
        checkpoint: where a checkpoint is due, or None.
    """

    images_seen: int
    history: list[Row]
    preview: Tensor | None
    preview_labels: Tensor | None
    checkpoint: Checkpoint | None


class Trainer:
    """Network, average, optimizer and data of a run, and the step that moves them."""

    def __init__(self, run: Run, images: AugmentedImages, holdout: ImageStore, hardware: Hardware) -> None:
        self.run, self.images, self.holdout, self.hardware = run, images, holdout, hardware
        self.device, self.seed = hardware.device, run.training.seed
        with seeded(torch.device("cpu"), self.seed, Stream.INITIALISATION):
            network = UNet(run.model, run.image_shape[0], len(run.class_names))
        if run.initial_weights is not None:
            network.load_state_dict(run.initial_weights)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = OPTIMIZERS[run.optimizer.name](self.network.parameters(), run.optimizer)
        self.scaler = hardware.grad_scaler()
        self.schedule = make_schedule(run.diffusion).to(self.device)
        self.target = TARGETS[run.diffusion.target]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the checkpoint stood."""
        self.network.load_state_dict(checkpoint.network)
        self.average.load_state_dict(checkpoint.average)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scaler.load_state_dict(checkpoint.scaler)

    def checkpoint(self, images_seen: int, history: list[Row]) -> Checkpoint:
        """All that :meth:`restore` and the rest of the run need."""
        return Checkpoint(
            run_id=self.run.run_id,
            parameters=self.run.parameters,
            data=self.run.data,
            images_seen=images_seen,
            num_images=self.run.num_images,
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            history=history,
            image_shape=self.run.image_shape,
            class_names=self.run.class_names,
            initial_model=self.run.initial_model,
        )

    def step(self, step: int, pixels: Tensor) -> tuple[Tensor, Tensor, float]:
        """One step of Ho et al. (2020), algorithm 1.

        Args:
            step: its number.
            pixels: (N, H, W, C) uint8, its pictures.

        Returns:
            Loss and gradient norm as they lie on the device, and the learning rate.
        """
        p = self.run.training
        lr = learning_rate((step + 1) * p.batch_size, self.run.num_images, self.run.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with seeded(self.device, self.seed, Stream.DROPOUT, step), self.hardware.autocast():
            loss = diffusion_loss(self.network, self.schedule, self.target, *self.batch(step, pixels)).mean()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.run.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        update_average(self.average, self.network, step, p.ema_decay)
        return loss.detach(), norm, lr

    def batch(self, step: int, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Pictures, timesteps, noise and labels of a step: always the same for the same seed."""
        p = self.run.training
        indices = batch_indices(self.seed, step, p.batch_size, len(self.images))
        x0 = self.images.from_pixels(pixels, augmentation_generator(self.seed, step), self.device)
        generator = generator_for(self.seed, Stream.DIFFUSION, step, device=self.device)
        timesteps = self.schedule.rows(torch.rand(len(x0), generator=generator, device=self.device))
        noise = torch.randn(x0.shape, generator=generator, device=self.device)
        labels = self.images.labels(indices, self.device) if self.run.class_names else None
        if labels is not None and p.label_dropout:
            drop = torch.rand(len(x0), generator=generator_for(self.seed, Stream.LABEL_DROPOUT, step))
            labels = torch.where((drop < p.label_dropout).to(self.device), self.network.num_classes, labels)
        return x0, timesteps, noise, labels

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Loss of the averaged weights on the hold-out, with the same noise and evenly spread timesteps every time."""
        p = self.run.training
        count = min(p.validation_images, len(self.holdout))
        chosen = torch.arange(count) * len(self.holdout) // count
        generator = generator_for(self.seed, Stream.VALIDATION)
        spread = (torch.randperm(count, generator=generator) + 0.5) / count
        timesteps = self.schedule.rows(spread.to(self.device))
        total = 0.0
        for part in torch.arange(count).split(p.batch_size):
            x0 = to_float(read_pixels(self.holdout, chosen[part]), self.device)
            noise = torch.randn(x0.shape, generator=generator).to(self.device)
            labels = self.holdout_labels(chosen[part])
            with self.hardware.autocast():
                loss = diffusion_loss(
                    self.average, self.schedule, self.target, x0, timesteps[part.to(self.device)], noise, labels
                )
            total += loss.sum().item()
        return total / count

    def holdout_labels(self, indices: Tensor) -> Tensor | None:
        """Labels of the hold-out (N,), or None."""
        if not self.run.class_names or self.holdout.labels is None:
            return None
        return torch.from_numpy(self.holdout.labels[indices.numpy()]).to(self.device)

    def preview(self) -> tuple[Tensor | None, Tensor | None]:
        """The same few samples every time, drawn with few steps: pictures (N, H, W, C) uint8 and labels."""
        p = self.run.training
        if p.preview_images == 0:
            return None, None
        classes = len(self.run.class_names)
        labels = torch.arange(p.preview_images) % classes if classes else None
        plan = SamplingPlan(
            self.run.diffusion, "dpm_solver++", p.preview_steps, p.preview_guidance_scale if classes else 1.0
        )
        pictures = draw_images(
            self.average, plan, self.run.image_shape, self.seed, range(p.preview_images), labels, self.hardware.autocast
        )
        return to_uint8(pictures).cpu(), labels


def train(
    run: Run,
    images: AugmentedImages,
    holdout: ImageStore,
    hardware: Hardware,
    resume: Checkpoint | None,
    should_stop: Callable[[], bool],
) -> Iterator[Report]:
    """Train from the beginning or from a checkpoint of the same run, and report at every interval.

    The last report always has a checkpoint; that of a run asked to stop has nothing else that is new.

    Raises:
        UserError: for a batch larger than the data, or a loss that is not a number any more.
    """
    p = run.training
    if p.batch_size > len(images):
        raise UserError(f"training.batch_size = {p.batch_size} is more than the {len(images)} training images.")
    trainer = Trainer(run, images, holdout, hardware)
    history, first = [], 0
    if resume is not None:
        trainer.restore(resume)
        history, first = list(resume.history), resume.images_seen // p.batch_size
    meter, saved_at = Meter(), first * p.batch_size
    steps = range(first, run.num_steps)
    batches = read_steps(images.store, p, steps, pin_memory=hardware.device.type == "cuda")
    with progress_bar(first * p.batch_size, run.num_images) as show:
        for step, pixels in zip(steps, batches, strict=True):
            meter.add(p.batch_size, *trainer.step(step, pixels))
            seen = (step + 1) * p.batch_size
            show(seen, meter.text)
            finished = step + 1 == run.num_steps
            if not finished and should_stop():  # at once: whoever stops a process does not wait for previews
                yield Report(seen, history, None, None, trainer.checkpoint(seen, history))
                return
            if finished or seen // p.report_interval > (seen - p.batch_size) // p.report_interval:
                history = [*history, meter.row(seen) | {"validation_loss": trainer.validation_loss()}]
                due = finished or seen - saved_at >= p.checkpoint_interval
                saved_at = seen if due else saved_at
                yield Report(seen, history, *trainer.preview(), trainer.checkpoint(seen, history) if due else None)
                meter.restart()


class Meter:
    """Sums since the last report. Nothing is read from the device before :meth:`row`."""

    def __init__(self) -> None:
        self.text = ""
        self.restart()

    def restart(self) -> None:
        """Begin a new interval now."""
        self.steps, self.images, self.lr = 0, 0, 0.0
        self.loss, self.norm = torch.zeros(()), torch.zeros(())
        self.start = time.perf_counter()

    def add(self, images: int, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Count a step."""
        self.steps, self.images, self.lr = self.steps + 1, self.images + images, lr
        self.loss, self.norm = loss + self.loss, norm + self.norm  # a zero of the CPU adds to any device

    def row(self, images_seen: int) -> Row:
        """The interval as one row of the history.

        Raises:
            DivergedError: where the loss is not finite.
        """
        loss = float(self.loss) / self.steps
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is {loss} after {images_seen:,} images, learning rate {self.lr:.2e}. The last checkpoint "
                "is from before that; lower optimizer.lr, or use training.precision=fp32."
            )
        row = {
            "images_seen": images_seen,
            "loss": loss,
            "learning_rate": self.lr,
            "gradient_norm": float(self.norm) / self.steps,
            "images_per_second": self.images / (time.perf_counter() - self.start),
        }
        self.text = f"loss {loss:.4f}  lr {self.lr:.1e}  {row['images_per_second']:.0f}/s"
        return row
