"""The raw pictures of each step: read ahead by worker processes where asked for, or kept on the device."""

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import current_thread, main_thread

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.pixels import read_pixels, to_device
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.parameters import TrainingParameters
from ddpm_kedro.training.randomness import batch_indices

logger = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where Linux keeps what processes share
COPIED_AT_ONCE = 10_000  # images, to a device: memory for all of them at once might not be there
BATCHES_AHEAD = 2  # of each worker
SHARE_OF_DEVICE = 0.25  # of a GPU's free memory that images may take: the network needs the rest
FREE_MEMORY: dict[str, Callable[[], int]] = {"cuda": lambda: torch.cuda.mem_get_info()[0]}
"""Bytes free on a device whose memory is its own, by its type."""


class StepPixels(Dataset[Tensor]):
    """Item k is the batch of step k, (N, H, W, C) uint8: always the same for the same seed.

    Args:
        store: the images.
        seed, batch_size: of the training.
        rows: (M,) int64, which of the batch are read; None for all.
    """

    def __init__(self, store: ImageStore, seed: int, batch_size: int, rows: Tensor | None = None) -> None:
        self.store, self.seed, self.batch_size, self.rows = store, seed, batch_size, rows

    def indices(self, step: int) -> Tensor:
        """Which images these are, (M,) int64."""
        indices = batch_indices(self.seed, step, self.batch_size, len(self.store))
        return indices if self.rows is None else indices[self.rows]

    def __getitem__(self, step: int) -> Tensor:
        return read_pixels(self.store, self.indices(step))


class DevicePixels(StepPixels):
    """The same, from images that lie on the device: only their numbers go there at every step."""

    def __init__(self, pixels: StepPixels, device: torch.device) -> None:
        super().__init__(pixels.store, pixels.seed, pixels.batch_size, pixels.rows)
        self.images = torch.empty(pixels.store.images.shape, dtype=torch.uint8, device=device)
        for rows in torch.arange(len(pixels.store)).split(COPIED_AT_ONCE):
            self.images[rows[0] : rows[-1] + 1] = read_pixels(pixels.store, rows).to(device)

    def __getitem__(self, step: int) -> Tensor:
        return self.images[to_device(self.indices(step), self.images.device)]


def read_steps(
    pixels: StepPixels, training: TrainingParameters, steps: range, device: torch.device
) -> Iterator[Tensor]:
    """The batches of these steps in turn, the same ones however they are read.

    Raises:
        UserError: where the batches that the workers read ahead do not fit into shared memory.
    """
    workers = training.loader_workers
    if workers:
        _check_shared_memory(pixels, training)
    elif pixels.store.images.nbytes < SHARE_OF_DEVICE * FREE_MEMORY.get(device.type, int)():
        kept = DevicePixels(pixels, device)
        return (kept[step] for step in steps)
    loader = DataLoader(
        pixels,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        worker_init_fn=_leave_ctrl_c_to_the_parent,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else it draws from torch's global one
    )
    return _outlive_workers(loader, pixels, steps)


def _outlive_workers(loader: DataLoader[Tensor], pixels: StepPixels, steps: range) -> Iterator[Tensor]:
    """A worker that was killed, by SIGTERM to all processes of a job or for lack of memory, costs speed and no more."""
    done = 0
    try:
        for batch in _quietly(loader):
            yield batch
            done += 1
    except RuntimeError as error:
        if not loader.num_workers:
            raise
        logger.warning("A loader worker died: the training process reads the images itself. (%s)", error)
        for step in steps[done:]:
            yield pixels[step]


def _quietly(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """The batches, without torch's handler of SIGCHLD, which raises wherever the training is when a worker dies.

    That a worker is gone is noticed all the same when its next batch is waited for.
    """
    signals = hasattr(signal, "SIGCHLD") and current_thread() is main_thread()
    before = signal.getsignal(signal.SIGCHLD) if signals else None
    batches = iter(loader)
    if signals:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def _check_shared_memory(pixels: StepPixels, training: TrainingParameters) -> None:
    if not SHARED_MEMORY.is_dir():
        return
    batches = training.loader_workers * BATCHES_AHEAD + 1  # and the one in use
    needed = batches * len(pixels.indices(0)) * pixels.store.images[0].nbytes / 2**20
    free = shutil.disk_usage(SHARED_MEMORY).free / 2**20
    if needed > free:
        raise UserError(
            f"training.loader_workers = {training.loader_workers} keeps {batches} batches, {needed:,.0f} MiB, in "
            f"shared memory, but {SHARED_MEMORY} has only {free:,.0f} MiB free. Use fewer workers, or give a container "
            "more: --shm-size=2g."
        )


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal, but the parent still needs its batches to end in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
