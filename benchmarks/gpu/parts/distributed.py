"""One process under torchrun: start its group, stop and resume training, and compare with an uninterrupted run."""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.gpu.settings import Settings, parameters
from benchmarks.training.networks import our_parameters
from benchmarks.training.results import Row
from benchmarks.training.step import as_in_a_run, random_store

from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.training.loop import train
from ddpm_kedro.training.run import Checkpoint, Run

MODULE = "benchmarks.gpu.parts.distributed"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", MODULE)


def measure(settings: Settings) -> Iterator[Row]:
    """Yield the process group, then the differences between the resumed and an uninterrupted run.

    Raises:
        RuntimeError: if a process ended with an error.
    """
    as_in_a_run(settings.device)
    steps = settings.sizes.resumed_steps
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "checkpoint.pt")
        for last in (steps // 2, steps):
            words = [settings.device, str(int(settings.tiny)), str(last), str(file)]
            done = subprocess.run([*TORCHRUN, *words], check=False, capture_output=True, text=True)
            print(done.stdout, done.stderr, flush=True)
            if done.returncode:
                raise RuntimeError(f"torchrun ended with {done.returncode} at step {last}: see the log.")
            [backend] = [line for line in done.stdout.splitlines() if line.startswith("backend")]
            state = read(file)
            yield {
                "what": f"torchrun, until step {last} of {steps}",
                "value": f"{state.images_seen:,} images; {backend}",
            }
    alone = trained(settings, steps, None)
    yield {"what": "largest difference of a loss, relative", "value": f"{difference(state, alone):.2g}"}
    gap = max(float((state.network[name].cpu() - alone.network[name].cpu()).abs().max()) for name in alone.network)
    yield {"what": "largest difference of a weight", "value": f"{gap:.2g}"}


def difference(one: Checkpoint, other: Checkpoint) -> float:
    """Return the largest relative difference between the losses of two histories."""
    rows = zip(one.history, other.history, strict=True)
    return max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in rows)


def trained(settings: Settings, last: int, resume: Checkpoint | None) -> Checkpoint:
    """Train until step ``last`` and return the checkpoint."""
    sizes = settings.sizes
    shape, batch = sizes.shape, sizes.compared
    lengths = {"batch_size": batch, "num_images": batch * sizes.resumed_steps, "preview_images": 0}
    lengths |= {"report_interval": batch, "checkpoint_interval": batch, "validation_images": batch}
    groups = parameters(**{f"training__{name}": value for name, value in lengths.items()})
    store = random_store(shape, 2 * batch)
    images = AugmentedImages(store, groups["augmentation"])
    run = Run.of(images, our_parameters(shape), groups["diffusion"], groups["optimizer"], groups["training"])
    steps = itertools.count(1 + (resume.images_seen // batch if resume else 0))
    hardware = choose_hardware(settings.device, "auto")
    *_, report = train(run, images, store, hardware, resume, lambda: next(steps) >= last)
    assert report.checkpoint is not None  # the last report of a run always has one
    return report.checkpoint


def read(file: Path) -> Checkpoint:
    """Read a checkpoint that :func:`write` saved."""
    return Checkpoint.from_dict(torch.load(file, weights_only=True))


def write(checkpoint: Checkpoint, file: Path) -> None:
    """Save a checkpoint as tensors and plain data."""
    torch.save(checkpoint.as_dict(), file)


def main(device: Any, tiny: str, last: str, file: str) -> None:
    """Train in a process group until a step, from the saved checkpoint if there is one."""
    settings = Settings(device, bool(int(tiny)), None, Path())
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    one = torch.ones(1, device=device)
    dist.all_reduce(one)
    assert one.item() == dist.get_world_size()
    print(f"backend {dist.get_backend_config()}, all_reduce on {one.device}", flush=True)
    as_in_a_run(device)
    checkpoint = Path(file)
    write(trained(settings, int(last), read(checkpoint) if checkpoint.exists() else None), checkpoint)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
