"""Compare the memory that a training needs with the memory of its device, and find the settings that fit."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from ddpm_kedro.distributed import World
from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import Hardware, available_memory
from ddpm_kedro.models import build_network
from ddpm_kedro.progress import gigabytes
from ddpm_kedro.training.memory import training_memory
from ddpm_kedro.training.run import Run

logger = logging.getLogger(__name__)
TOLERANCE = 1.15  # estimates are within 15 % of measurements
LEAST_GAIN = 0.75  # after the device ran out of memory, settings are named that need at most this share of it
UNKNOWN = 2**62  # bytes
SMALL = 2_000  # no network keeps as many tensors of its first width at full resolution
MESSAGES = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of GPUs, CPUs, and libraries of a GPU


@dataclass(frozen=True)
class MemoryCheck:
    """The memory of a training: what its settings need, and what its device has.

    Attributes:
        images: bytes of the training images on the device.
    """

    run: Run
    hardware: Hardware
    world: World
    images: int = 0

    @cached_property
    def available(self) -> int:
        """Return the bytes that every process has for training; UNKNOWN if that is not known."""
        available = available_memory(self.hardware.device)
        left = UNKNOWN if available is None else available - self.images
        return -int(self.world.max(torch.tensor(-left)))

    @property
    def rows(self) -> int:
        """Return the number of images of a batch that a process computes."""
        return self.run.training.batch_size // self.world.size

    def needed(self, parts: int, activation_checkpointing: bool) -> int:
        """Return the bytes that training needs if each process computes its images in so many parts."""
        run = self.run
        return training_memory(
            run.model,
            run.image_shape,
            len(run.class_names),
            self.rows // parts,
            self.hardware,
            activation_checkpointing,
            optimizer=run.optimizer.name,
            batch=self.rows,
        )

    def parts_that_fit(self, available: float, *, activation_checkpointing: bool) -> int | None:
        """Return the least number of parts with which training fits, not less than now; None if none does."""
        now = self.run.training.accumulation_steps
        for parts in range(now, self.rows + 1):
            if self.rows % parts == 0 and self.needed(parts, activation_checkpointing) <= available:
                return parts
        return None

    def choose_parts(self) -> int:
        """Return the number of parts to train with: ``training.accumulation_steps``, or more if allowed and needed.

        Raises:
            UserError: if the training does not fit, and ``training.out_of_memory`` is ``stop``.
        """
        p, available = self.run.training, self.available
        if available == UNKNOWN or self._is_small():
            return p.accumulation_steps
        needed = self.needed(p.accumulation_steps, p.activation_checkpointing)
        logger.debug("Memory: training needs about %s of %s.", gigabytes(needed), gigabytes(available))
        if needed <= available:
            return p.accumulation_steps
        problem = (
            f"Training needs about {gigabytes(needed)} of memory, but {self.hardware.device} has {gigabytes(available)}"
        )
        if p.out_of_memory == "accumulate":
            parts = self.parts_that_fit(available, activation_checkpointing=p.activation_checkpointing)
            if parts is not None:
                logger.warning("%s: each batch is computed in %d parts.", problem, parts)
                return parts
        if p.out_of_memory == "try" or needed <= TOLERANCE * available:
            logger.warning("%s: it may run out of memory. %s", problem, self.advice(available))
            return p.accumulation_steps
        raise UserError(f"{problem}. {self.advice(available)}")

    def advice(self, available: float) -> str:
        """Return the settings that fit, as a sentence; what changes no result comes first."""
        p, settings = self.run.training, []
        for checkpointing in (p.activation_checkpointing, True):
            parts = self.parts_that_fit(available, activation_checkpointing=checkpointing)
            if parts is None:
                continue
            values = [] if checkpointing == p.activation_checkpointing else ["training.activation_checkpointing=true"]
            if parts > p.accumulation_steps:
                values.append(f"training.accumulation_steps={parts}")
            settings.append(f"{','.join(values)} ({gigabytes(self.needed(parts, checkpointing))})")
        if settings:
            return f"This fits, without changing what is learnt: --params {' or '.join(dict.fromkeys(settings))}."
        return (
            "One image at a time does not fit either: choose smaller images (images.size), a smaller model.width, or a "
            "larger model.patch_size."
        )

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Turn an error of a device without free memory into a UserError that names the settings that fit."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            p = self.run.training
            needed = self.needed(p.accumulation_steps, p.activation_checkpointing)
            raise UserError(
                f"{self.hardware.device} ran out of memory: training needs about {gigabytes(needed)}, and other "
                f"programs may use the device. {self.advice(min(self.available, LEAST_GAIN * needed))}"
            ) from error

    def _is_small(self) -> bool:
        """Return whether training fits by far, which costs no simulation."""
        (channels, height, width), model = self.run.image_shape, self.run.model
        with torch.device("meta"):
            weights = sum(weight.nbytes for weight in build_network(model, channels).parameters())
        values = self.rows * height * width * max(channels, model.width / model.patch_size**2)
        return 5 * weights + SMALL * 4 * values < self.available


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means that a device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in MESSAGES)


def next_parts(rows: int, parts: int) -> int | None:
    """Return the least number of parts, at least twice as many, that divides the rows; None if there is none."""
    return next((count for count in range(2 * parts, rows + 1) if rows % count == 0), None)
