"""The raw images of each step: read ahead by worker processes, or kept on the device."""

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
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  Linux shares memory between processes here
COPIED_AT_ONCE = 10_000  # images per copy to a device: a copy of all images at once may not fit into memory
BATCHES_AHEAD = 2  # batches that each worker loads ahead
SHARE_OF_DEVICE = 0.25  # share of a GPU's free memory that images may use: the network needs the rest
FREE_MEMORY: dict[str, Callable[[], int]] = {"cuda": lambda: torch.cuda.mem_get_info()[0]}
"""Free bytes of a device with its own memory, by type of device."""


class StepPixels(Dataset[Tensor]):
    """A dataset whose item k is the batch of step k, (N, H, W, C) uint8: the same for the same seed.

    Args:
        store: store of the training images.
        seed, batch_size: seed and batch size of the training.
        rows: rows of the batch to read, (M,) int64; None for all.
    """

    def __init__(self, store: ImageStore, seed: int, batch_size: int, rows: Tensor | None = None) -> None:
        self.store, self.seed, self.batch_size, self.rows = store, seed, batch_size, rows

    def indices(self, step: int) -> Tensor:
        """Return the indices of these images, (M,) int64."""
        indices = batch_indices(self.seed, step, self.batch_size, len(self.store))
        return indices if self.rows is None else indices[self.rows]

    def __getitem__(self, step: int) -> Tensor:
        return read_pixels(self.store, self.indices(step))


class DevicePixels(StepPixels):
    """The same dataset with all images on the device: a step copies only indices to the device."""

    def __init__(self, pixels: StepPixels, device: torch.device) -> None:
        super().__init__(pixels.store, pixels.seed, pixels.batch_size, pixels.rows)
        self.images = torch.empty(pixels.store.images.shape, dtype=torch.uint8, device=device)
        for rows in torch.arange(len(pixels.store)).split(COPIED_AT_ONCE):
            self.images[rows[0] : rows[-1] + 1] = read_pixels(pixels.store, rows).to(device)

    def __getitem__(self, step: int) -> Tensor:
        return self.images[to_device(self.indices(step), self.images.device)]


def bytes_on_device(store: ImageStore, training: TrainingParameters, device: torch.device) -> int:
    """Return the bytes of the images if they stay on the device during training, otherwise 0."""
    size: int = store.images.nbytes
    fits = not training.loader_workers and size < SHARE_OF_DEVICE * FREE_MEMORY.get(device.type, int)()
    return size if fits else 0


def read_steps(
    pixels: StepPixels, training: TrainingParameters, steps: range, device: torch.device
) -> Iterator[Tensor]:
    """Yield the batches of these steps in order; they do not depend on how they are read.

    Raises:
        UserError: if the batches that the workers read ahead do not fit into shared memory.
    """
    workers = training.loader_workers
    if workers:
        _check_shared_memory(pixels, training)
    elif bytes_on_device(pixels.store, training, device):
        on_device = DevicePixels(pixels, device)
        return (on_device[step] for step in steps)
    loader = DataLoader(
        pixels,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        worker_init_fn=_ignore_ctrl_c,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # otherwise it uses torch's global one
    )
    return _outlive_workers(loader, pixels, steps)


def _outlive_workers(loader: DataLoader[Tensor], pixels: StepPixels, steps: range) -> Iterator[Tensor]:
    """Yield the batches; read the rest in this process if a worker is killed, by SIGTERM or for lack of memory."""
    done = 0
    try:
        for batch in _without_sigchld_handler(loader):
            yield batch
            done += 1
    except RuntimeError as error:
        if not loader.num_workers:
            raise
        logger.warning("A loader worker died: the training process reads the images itself. (%s)", error)
        for step in steps[done:]:
            yield pixels[step]


def _without_sigchld_handler(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """Yield the batches without torch's SIGCHLD handler, which raises anywhere in the training when a worker dies.

    The DataLoader still raises when it waits for the next batch of a dead worker.
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
    batches = training.loader_workers * BATCHES_AHEAD + 1  # one is in use
    needed = batches * len(pixels.indices(0)) * pixels.store.images[0].nbytes / 2**20
    free = shutil.disk_usage(SHARED_MEMORY).free / 2**20
    if needed > free:
        raise UserError(
            f"training.loader_workers = {training.loader_workers} keeps {batches} batches, {needed:,.0f} MiB, in "
            f"shared memory, but {SHARED_MEMORY} has only {free:,.0f} MiB free. Use fewer workers, or give a container "
            "more: --shm-size=2g."
        )


def _ignore_ctrl_c(worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal: the parent needs batches until it has stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
