"""Measure the quality of samples by solver and number of steps, and the speed of sampling beside diffusers.

``make bench-sampling`` prints both tables as Markdown. Quality is measured with the model in data/06_models/model,
speed with U-Nets of random weights, which diffusers' pipeline uses too.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.pair import make_pair

from ddpm_kedro.datasets.feature_extractor import FeatureExtractorDataset
from ddpm_kedro.datasets.image_store import ImageStoreDataset
from ddpm_kedro.datasets.model import ModelDataset
from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.metrics.scores import kernel_distance
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ModelParameters

DATA = Path("data")
IMAGES, BATCH = 500, 250  # per solver
SOLVERS = [  # name and number of steps
    *(("ddpm", count) for count in (20, 100, 1000)),
    *(("ddim", count) for count in (5, 10, 20, 50)),
    *(("dpm_solver++", count) for count in (5, 10, 20, 50)),
    *(("heun", count) for count in (3, 6, 10, 25)),
]
ROUNDS, STEPS, WIDTHS = 5, 10, (32, 64)
NETWORK = {
    "channel_multipliers": (1, 2, 2),
    "blocks_per_level": 2,
    "attention_levels": (1,),
    "head_channels": None,
    "norm_groups": 8,
    "norm_eps": 1e-6,
    "dropout": 0.0,
    "patch_size": 1,
    "class_conditional": False,
}


def quality() -> None:
    """Print the KID of each solver's digits, compared with the training digits, with the usual guidance."""
    model = ModelDataset(filepath=str(DATA / "06_models/model")).load()
    extractor = FeatureExtractorDataset(filepath=str(DATA / "06_models/feature_extractor")).load()
    training = ImageStoreDataset(filepath=str(DATA / "05_model_input/training_images")).load()
    holdout = ImageStoreDataset(filepath=str(DATA / "05_model_input/holdout_images")).load()
    hardware = choose_hardware("auto", "auto")
    reference, _ = extractor(training.images)
    labels = torch.arange(IMAGES) % len(model.class_names)
    print(f"{IMAGES} digits each, {hardware.reason}, guidance 1.75\n")
    print("| solver | steps | evaluations | KID ± spread | accuracy of classes | seconds |\n|---|---|---|---|---|---|")
    for name, steps in SOLVERS:
        plan = SamplingPlan(model.diffusion, name, steps, 1.75)
        batch_sizes: list[int] = []
        hook = model.network.register_forward_hook(
            lambda network, inputs, output, sizes=batch_sizes: sizes.append(len(output))
        )
        start = time.perf_counter()
        samples = [
            generate_images(
                model.network, plan, model.image_shape, 1, part.tolist(), labels[part], autocast=hardware.autocast
            )
            for part in torch.arange(IMAGES).split(BATCH)
        ]
        seconds = time.perf_counter() - start
        hook.remove()
        features, logits = extractor(to_uint8(torch.cat(samples)).numpy())
        value, spread = kernel_distance(features, reference, 50, 100)
        accuracy = float((logits.argmax(1) == labels).float().mean())
        evaluations = sum(batch_sizes) // IMAGES
        print(
            f"| {name} | {steps} | {evaluations} | {value:.3f} ± {spread:.3f} | {accuracy:.1%} | {seconds:.1f} |",
            flush=True,
        )
    value, spread = kernel_distance(extractor(holdout.images)[0], reference, 50, 100)
    print(f"| holdout | | | {value:.3f} ± {spread:.3f} | | |\n")
    difference(model)


def difference(model: TrainedModel) -> None:
    """Print the difference between samples in bfloat16 and in float32."""
    plan, labels = SamplingPlan(model.diffusion, "dpm_solver++", 10, 1.75), torch.arange(100) % 10

    def samples(autocast: Callable[[], Any]) -> Any:
        images = generate_images(model.network, plan, model.image_shape, 0, range(100), labels, autocast=autocast)
        return to_uint8(images).numpy().astype(np.int64)

    gap = np.abs(samples(lambda: torch.autocast("cpu", torch.bfloat16)) - samples(nullcontext)).mean()
    print(f"bf16 and fp32, the same noise, DPM-Solver++ 2M: mean difference {gap:.2f} grey levels of 255.\n")


def speed() -> None:
    """Print the speed of a small and a larger network."""
    for width in WIDTHS:
        speed_of(width)


def speed_of(width: int) -> None:
    """Print images per second of DDIM and of diffusers' pipeline with the same weights: medians of rounds."""
    p = ModelParameters.model_validate(NETWORK | {"width": width})
    model, plan, pipeline = make_pair(p, (3, 32, 32), STEPS)
    network = model.network
    hardware = choose_hardware("auto", "auto")

    def ours(batch: int) -> None:
        to_uint8(generate_images(network, plan, model.image_shape, 0, range(batch), autocast=hardware.autocast))

    def theirs(batch: int) -> None:
        pipeline(batch_size=batch, num_inference_steps=STEPS, output_type="np")

    def theirs_bf16(batch: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            theirs(batch)

    weights = sum(weight.numel() for weight in network.parameters())
    print(f"DDIM, {STEPS} steps, 32×32×3, {weights / 1e6:.1f} M parameters, {torch.get_num_threads()} threads\n")
    print(
        "| batch | ours, " + hardware.precision + " | diffusers, fp32 | diffusers, bf16 autocast |\n|---|---|---|---|"
    )
    for batch in (1, 64):
        seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "theirs_bf16": []}
        for _ in range(ROUNDS + 1):
            for name, run in (("ours", ours), ("theirs", theirs), ("theirs_bf16", theirs_bf16)):
                start = time.perf_counter()
                run(batch)
                seconds[name].append(time.perf_counter() - start)
        rates = [batch / statistics.median(times[1:]) for times in seconds.values()]  # the first round warms up
        print(f"| {batch} | {' | '.join(f'{rate:.2f}' for rate in rates)} images/s |", flush=True)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["quality", "speed"]
    for part in (quality, speed):
        if part.__name__ in chosen:
            part()
