"""The network, EMA, optimizer and data of a run, and the training step."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm_kedro.diffusion import (
    TARGETS,
    SamplingPlan,
    derive_seed,
    diffusion_loss,
    generate_images,
    generator_for,
    image_noise,
    make_schedule,
)
from ddpm_kedro.distributed import World
from ddpm_kedro.hardware import Hardware
from ddpm_kedro.images.augmentation import NUMBERS, AugmentedImages
from ddpm_kedro.images.non_leaking import LABELS
from ddpm_kedro.images.pixels import read_pixels, to_device, to_float, to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.models import build_network
from ddpm_kedro.training.loader import StepPixels, read_steps
from ddpm_kedro.training.memory_check import is_out_of_memory, next_parts
from ddpm_kedro.training.optimizers import ema_decay, learning_rate, make_optimizer, match_memory_format, update_ema
from ddpm_kedro.training.randomness import Stream, augmentation_generator, batch_indices, seeded
from ddpm_kedro.training.run import Checkpoint, Row, Run

logger = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Images (N, C, H, W) in [-1, 1], rows of the schedule (N,), noise (N, C, H, W), labels (N,) or None, labels of the
non-leaking augmentation (N, K) or None."""
ONE_PROCESS = World()


class Trainer:
    """Train the network of a run.

    In distributed training each process has its own Trainer and computes a part of the rows of every batch.
    """

    def __init__(
        self,
        run: Run,
        images: AugmentedImages,
        holdout: ImageStore,
        hardware: Hardware,
        world: World = ONE_PROCESS,
        parts: int | None = None,
    ) -> None:
        self.run, self.images, self.holdout, self.hardware, self.world = run, images, holdout, hardware, world
        self.device, self.seed = hardware.device, run.training.seed
        with seeded(torch.device("cpu"), self.seed, Stream.INITIALISATION):
            augmentation_labels = LABELS if run.augmentation.non_leaking else 0
            network = build_network(run.model, run.image_shape[0], len(run.class_names), augmentation_labels)
        if run.initial_weights is not None:
            network.load_state_dict(network.state_dict() | dict(run.initial_weights))
        network.recompute_activations(run.training.activation_checkpointing)
        self.network = network.to(self.device).to(memory_format=hardware.memory_format)
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.ema.augmentation_embedding = None  # the EMA is for validation and samples, which are not augmented
        self.optimizer = make_optimizer(self.network.parameters(), run.optimizer)
        self.scaler = hardware.grad_scaler()
        self.schedule = make_schedule(run.diffusion).to(self.device)
        self.target = TARGETS[run.diffusion.target]
        self.rows = world.rows(run.training.batch_size, run.training.accumulation_steps)
        self.parts = parts or run.training.accumulation_steps
        self.pixels = StepPixels(images.store, self.seed, run.training.batch_size, self.rows)
        self.distributed = self._distribute(self.network)
        if run.training.compile != "none":
            self.distributed.compile(mode=run.training.compile)

    @property
    def part_size(self) -> int:
        """Return the number of images that this process computes at once."""
        return len(self.rows) // self.parts

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load the state of a checkpoint."""
        self.network.load_state_dict(checkpoint.network)
        self.ema.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        match_memory_format(self.optimizer)
        self.scaler.load_state_dict(checkpoint.scaler)

    def checkpoint(self, images_seen: int, history: list[Row], meter: Row, best_validation_loss: float) -> Checkpoint:
        """Return a checkpoint with all that :meth:`restore` and the rest of the run need."""
        return Checkpoint(
            record=self.run.record,
            images_seen=images_seen,
            network=self.network.state_dict(),
            ema=self.ema.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            history=history,
            meter=meter,
            best_validation_loss=best_validation_loss,
            trained_on=self.hardware.reason,
        )

    def read(self, steps: range) -> Iterator[Tensor]:
        """Yield the pixels for :meth:`step`, for these steps in order."""
        return read_steps(self.pixels, self.run.training, steps, self.device)

    def step(
        self, step: int, pixels: Tensor, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Tensor, Tensor, float] | None:
        """Take one step of Ho et al. (2020), algorithm 1.

        Args:
            step: number of the step.
            pixels: images of the step, (N, H, W, C) uint8.
            should_stop: function that is called between the parts of a batch.

        Returns:
            Loss and gradient norm on the device, and the learning rate; None if the step was abandoned: weights, EMA
            and optimizer state are then unchanged.
        """
        p = self.run.training
        lr = learning_rate((step + 1) * p.batch_size, self.run.num_images, self.run.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses = self._all_gradients(step, pixels, should_stop)
        while losses is not None and len(losses) < self.parts:  # the device ran out of memory
            losses = self._all_gradients(step, pixels, should_stop)
        if losses is None:
            return None
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.run.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        update_ema(self.ema, self.network, ema_decay(step * p.batch_size, p))
        return torch.stack(losses).sum(), norm, lr

    def _all_gradients(self, step: int, pixels: Tensor, should_stop: Callable[[], bool]) -> list[Tensor] | None:
        """Compute the gradients of a batch; return the share of the loss of each part, or None if stopped.

        If the device runs out of memory and ``training.out_of_memory`` is ``accumulate``, there are fewer shares than
        parts: the step must be repeated. Processes that wait for each other's gradients cannot repeat it.
        """
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        try:
            for part, batch in enumerate(_parts(self.batch(step, pixels), self.parts)):
                if part and should_stop():
                    return None
                losses.append(self._gradients(step, part, batch))
        except RuntimeError as error:
            parts = next_parts(len(self.rows), self.parts)
            may_repeat = self.run.training.out_of_memory == "accumulate" and self.world.size == 1
            if not (is_out_of_memory(error) and may_repeat) or parts is None:
                raise
            logger.warning("%s ran out of memory: each batch is computed in %d parts.", self.device, parts)
            self.parts = parts
        return losses

    def _gradients(self, step: int, part: int, batch: Batch) -> Tensor:
        """Add the gradients of one part of a batch; return its share of the loss."""
        parts = self.parts
        number = (step * parts + part) * self.world.size + self.world.rank  # each part has its own dropout
        # Activation checkpointing runs the forward pass again inside backward() and sets the global random state:
        # backward() must be inside ``seeded``, which restores it.
        with self._sync_gradients(part == parts - 1), seeded(self.device, self.seed, Stream.DROPOUT, number):
            with self.hardware.autocast():
                loss = diffusion_loss(self.distributed, self.schedule, self.target, *batch).mean() / parts
            self.scaler.scale(loss).backward()
        return loss.detach()

    def batch(self, step: int, pixels: Tensor, rows: Tensor | None = None) -> Batch:
        """Return these rows of the batch of a step (default: the rows of this process).

        The result is the same for the same seed. Random numbers are generated for the global batch, so that the number
        of processes does not matter.
        """
        p = self.run.training
        n, rows = p.batch_size, self.rows if rows is None else rows
        device_rows = to_device(rows, self.device)
        numbers = torch.rand(NUMBERS, n, generator=augmentation_generator(self.seed, step))[:, rows]
        x0, augmentation = self.images.from_pixels(pixels, numbers, self.device)
        x0 = x0.contiguous(memory_format=self.hardware.memory_format)
        generator = generator_for(self.seed, Stream.DIFFUSION, step, device=self.device)
        timesteps = self.schedule.indices(torch.rand(n, generator=generator, device=self.device))[device_rows]
        noise = torch.randn(n, *x0.shape[1:], generator=generator, device=self.device)[device_rows]
        indices = batch_indices(self.seed, step, n, len(self.images))[rows]
        labels = self.images.labels(indices, self.device) if self.run.class_names else None
        if labels is not None and p.label_dropout:
            drop = torch.rand(n, generator=generator_for(self.seed, Stream.LABEL_DROPOUT, step))[rows]
            labels = torch.where(to_device(drop < p.label_dropout, self.device), self.network.num_classes, labels)
        return x0, timesteps, noise, labels, augmentation

    def whole_batch(self, step: int) -> dict[str, Tensor]:
        """Return the global batch of a step, by name."""
        p = self.run.training
        pixels = StepPixels(self.images.store, self.seed, p.batch_size)
        batch = self.batch(step, pixels[step], torch.arange(p.batch_size))
        names = ("images", "timesteps", "noise", "labels", "augmentation")
        return {name: tensor.cpu() for name, tensor in zip(names, batch, strict=True) if tensor is not None}

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss of the EMA weights on holdout images, with evenly spaced timesteps and always the same noise.

        It is less noisy than the training loss, whose timesteps and noise differ from step to step.
        """
        p = self.run.training
        count = min(p.validation_images, len(self.holdout))
        indices = torch.arange(count) * len(self.holdout) // count
        shuffled = torch.randperm(count, generator=generator_for(self.seed, Stream.VALIDATION))
        timesteps = self.schedule.indices(((shuffled + 0.5) / count).to(self.device))
        seed, total = derive_seed(self.seed, Stream.VALIDATION), torch.zeros((), device=self.device)
        share = self.world.share(count)
        for part in share.split(self.part_size) if len(share) else ():
            x0 = to_float(read_pixels(self.holdout, indices[part]), self.device)
            noise = image_noise(seed, part.tolist(), self.run.image_shape, self.device)()
            labels = self.holdout_labels(indices[part])
            with self.hardware.autocast():
                loss = diffusion_loss(
                    self.ema, self.schedule, self.target, x0, timesteps[part.to(self.device)], noise, labels
                )
            total += loss.sum()
        return float(self.world.sum(total)) / count

    def holdout_labels(self, indices: Tensor) -> Tensor | None:
        """Return the labels of holdout images, (N,) int64, or None."""
        if not self.run.class_names or self.holdout.labels is None:
            return None
        return torch.from_numpy(self.holdout.labels[indices.numpy()]).to(self.device)

    def preview(self) -> tuple[Tensor | None, Tensor | None]:
        """Generate a few samples with few steps, always from the same noise and labels.

        Return images (N, H, W, C) uint8 and labels (N,), or None.
        """
        p = self.run.training
        if p.preview_images == 0:
            return None, None
        classes = len(self.run.class_names)
        labels = torch.arange(p.preview_images) % classes if classes else None
        plan = SamplingPlan(self.run.diffusion, "dpm_solver++", p.preview_steps, self.run.preview_guidance_scale)
        share = self.world.share(p.preview_images)
        samples = torch.empty(0, *self.run.image_shape)
        if len(share):
            samples = torch.cat([self._samples(plan, part, labels) for part in share.split(self.part_size)])
        return self.world.gather(to_uint8(samples).cpu()), labels

    def _samples(self, plan: SamplingPlan, indices: Tensor, labels: Tensor | None) -> Tensor:
        labels = None if labels is None else labels[indices]
        shape, autocast = self.run.image_shape, self.hardware.autocast
        return generate_images(self.ema, plan, shape, self.seed, indices.tolist(), labels, autocast)

    def _distribute(self, network: nn.Module) -> Any:
        """Return the network with gradients that are the mean over all processes."""
        if self.world.size == 1:
            return network
        # By default torch exchanges the first megabyte of gradients while it still computes the others. A CPU uses the
        # same cores for both, and each exchange waits for the slowest process: hence on a CPU all is exchanged at once.
        megabytes = 25 if self.device.type == "cpu" else None
        return DistributedDataParallel(network, bucket_cap_mb=megabytes, gradient_as_bucket_view=True)

    def _sync_gradients(self, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients once per batch, with its last part."""
        return nullcontext() if last or self.world.size == 1 else self.distributed.no_sync()


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield the batch in equal parts, in order."""
    parts: Any = [[None] * count if tensor is None else tensor.chunk(count) for tensor in batch]
    yield from zip(*parts, strict=True)
