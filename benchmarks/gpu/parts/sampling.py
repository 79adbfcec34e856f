"""Images per second of DDIM, beside diffusers' ``DDIMPipeline`` with the same network and weights."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.steps import as_in_a_run, attempt, free_memory, native_precision
from benchmarks.pair import make_pair
from benchmarks.training.networks import our_parameters
from benchmarks.training.results import Row

from ddpm_kedro.diffusion import generate_images
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.pixels import to_uint8


def measure(settings: Settings) -> Iterator[Row]:
    """Yield a row per batch and candidate, from noise to uint8 in the memory of the host."""
    as_in_a_run(settings.device)
    sizes, precision = settings.sizes, native_precision(settings)
    shape = sizes.shape
    image_shape = (shape.channels, shape.size, shape.size)
    model, plan, pipeline = make_pair(our_parameters(shape), image_shape, sizes.sampling_steps, settings.device)
    hardware = choose_hardware(settings.device, precision)

    def ours(batch: int) -> Any:
        images = generate_images(model.network, plan, image_shape, 0, range(batch), autocast=hardware.autocast)
        return to_uint8(images).cpu()

    def theirs(batch: int) -> Any:
        return pipeline(batch_size=batch, num_inference_steps=sizes.sampling_steps, output_type="np")

    def theirs_mixed(batch: int) -> Any:
        with hardware.autocast():
            return theirs(batch)

    candidates = (
        ("ours", precision, ours),
        ("DDIMPipeline", "fp32", theirs),
        ("DDIMPipeline, autocast", precision, theirs_mixed),
    )
    for batch in sizes.sampling:
        for name, used, run in candidates:
            free_memory()
            row = {"candidate": name, "precision": used, "batch": batch, "steps": sizes.sampling_steps}
            yield attempt(row, lambda run=run, batch=batch: _rate(run, batch, sizes.rounds))


def _rate(run: Callable[[int], Any], batch: int, rounds: int) -> Row:
    seconds = []
    for _ in range(rounds + 1):  # the first one warms up
        start = time.perf_counter()
        run(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"images_per_second": batch / statistics.median(seconds[1:])}
