"""The network that a training can afford, and how many images it sees in its time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ddpm_kedro.errors import UserError
from ddpm_kedro.hardware import Hardware
from ddpm_kedro.metrics.classifier import LEAST_CLASSES
from ddpm_kedro.parameters import ModelParameters, Parameters
from ddpm_kedro.planning.cost import Cost, extractor_cost, unet_cost
from ddpm_kedro.planning.networks import PATCHES, networks
from ddpm_kedro.planning.profile import DeviceProfile
from ddpm_kedro.progress import gigabytes
from ddpm_kedro.training.memory import training_memory

Shape = tuple[int, int, int]
IMAGES_PER_FLOP = 1e-4
"""Images that a network should see per FLOP that an image costs it. After equal time, digits are best between 4e-5 and
4e-4 (docs/benchmarks.md, "Quality after equal training time"): larger networks saw too little, smaller ones could not
learn more."""
LEAST_IMAGES = 20_000  # no network there makes digits from fewer
FORWARD = 1 / 3  # of the FLOPs of a step: the backward pass needs twice as many as the forward pass
EXTRACTOR_SHARE = 0.1  # of the time of training: the limit for fitting the evaluation's extractor
RESERVE = 0.05  # of the budget: reading and writing, figures, the report
START_UP = 10.0  # seconds: starting Python, Kedro and torch, and ending
MOST_REPORTS, REPORT_SECONDS = 100, 900.0  # a report every 15 minutes, but at least LEAST_REPORTS
LEAST_REPORTS = 10
REPORT_SHARE = 0.1  # of the training: the limit for previews and validation losses
MEMORY_SHARE = 0.9  # of the memory of the device
BATCHES = (8, 16, 32, 64, 128, 256)
USUAL_BATCH = {"cpu": 32}  # 32 images already give a CPU its full speed (docs/benchmarks.md, "How the cost grows")
MOST_BATCH = {"cpu": 64}
GPU_BATCH, MOST_GPU_BATCH = 128, 256
LEAST_SIDE = 14  # pixels: images divided into patches keep so many per side, as the digits do
LEAST_STEPS = 2_000


@dataclass(frozen=True)
class Task:
    """What a plan is made for: images, device, time, and the parameters that the plan does not choose."""

    image_shape: Shape
    count: int
    classes: int
    profile: DeviceProfile
    seconds: float
    parameters: Parameters
    given: Mapping[str, Any]

    def given_of(self, group: str) -> dict[str, Any]:
        """Return the given values of a group of parameters, by name."""
        return {name.partition(".")[2]: value for name, value in self.given.items() if name.startswith(f"{group}.")}


@dataclass(frozen=True)
class Sizing:
    """A network and a batch, and how far a training comes with them."""

    model: ModelParameters
    cost: Cost
    batch_size: int
    accumulation_steps: int
    activation_checkpointing: bool
    memory: int
    images_per_second: float
    images: float
    reports: int

    @property
    def is_worth_it(self) -> bool:
        """Return whether the network sees enough images in the time."""
        return self.images >= max(LEAST_IMAGES, IMAGES_PER_FLOP * self.cost.flops)


def choose_size(task: Task, *, fit: bool = True) -> Sizing:
    """Return the largest network that sees enough images in the time; patches only if no other network does.

    Args:
        task: what the network is for.
        fit: whether it must fit the memory.

    Raises:
        UserError: if no network fits the memory of the device.
    """
    last: Sizing | None = None
    for candidates in _candidates(task):
        low, high = 0, len(candidates)  # the widths below ``low`` see enough images
        while low < high:
            middle = (low + high) // 2
            if _size(task, candidates[middle]).is_worth_it:
                low = middle + 1
            else:
                high = middle
        for candidate in reversed(candidates[: max(low, 1)]):
            sizing = _fit(task, _size(task, candidate)) if fit else _size(task, candidate)
            if sizing is not None and sizing.is_worth_it:
                return sizing
            last = sizing or last
    if last is None:
        raise UserError(
            f"Images of {task.image_shape[1]}×{task.image_shape[2]} pixels are too large for {task.profile.kind} with "
            f"{gigabytes(task.profile.memory)}: no network fits, not even one image at a time. Choose a smaller "
            "images.size."
        )
    return last


def extractor_images(task: Task, seconds: float) -> int:
    """Return how many images the evaluation's extractor can see in this time."""
    labelled = task.classes >= LEAST_CLASSES and task.parameters.evaluation.extractor == "classifier"
    views = 1 if labelled else 2  # SimCLR sees each image twice
    cost = extractor_cost(task.image_shape, task.classes if labelled else 0)
    return int(seconds / views * task.profile.extractor_images_per_second(cost))


def training_seconds(task: Task) -> float:
    """Return the part of the budget that is for training, sampling and the evaluation without its extractor."""
    return max(0.0, task.seconds * (1 - RESERVE) - START_UP) / (1 + EXTRACTOR_SHARE)


def _candidates(task: Task) -> Iterator[list[ModelParameters]]:
    given = {"class_conditional": task.classes >= LEAST_CLASSES} | task.given_of("model")
    shorter = min(task.image_shape[1:])
    possible = [patch for patch in PATCHES if patch == 1 or shorter >= LEAST_SIDE * patch]
    patches = [given["patch_size"]] if "patch_size" in given else possible
    for patch in patches:
        yield networks(task.image_shape, patch, given)


def _size(task: Task, model: ModelParameters) -> Sizing:
    """Return how far a training comes with this network; its memory is not checked."""
    cost = unet_cost(model, task.image_shape, task.classes)
    kind = task.profile.device
    usual, most = USUAL_BATCH.get(kind, GPU_BATCH), MOST_BATCH.get(kind, MOST_GPU_BATCH)
    images, _ = _images(task, model, cost, usual)
    fitting = [batch for batch in BATCHES if batch <= min(most, max(usual, images / LEAST_STEPS))]
    batch = task.given_of("training").get("batch_size") or min(fitting[-1], _power_of_two(task.count))
    images, reports = _images(task, model, cost, batch)
    speed = task.profile.images_per_second(cost, batch)
    return Sizing(model, cost, batch, 1, False, 0, speed, images, reports)


def _images(task: Task, model: ModelParameters, cost: Cost, batch: int) -> tuple[float, int]:
    """Return the images that a training sees in its time, and the number of its reports."""
    training, sampling, evaluation = task.parameters.training, task.parameters.sampling, task.parameters.evaluation
    seconds = training_seconds(task)
    total = seconds * task.profile.images_per_second(cost, batch)
    twice = 2 if model.class_conditional and training.label_dropout else 1  # guidance evaluates the network twice
    steps = twice * sampling.num_inference_steps * sampling.num_images
    after = FORWARD * (steps + evaluation.timestep_bins * min(100, task.count))
    report = FORWARD * (twice * training.preview_steps * training.preview_images + training.validation_images)
    wanted = min(MOST_REPORTS, max(LEAST_REPORTS, seconds / REPORT_SECONDS))
    reports = max(1, int(min(wanted, REPORT_SHARE * total / report)))
    return total - after - reports * report, reports


def _fit(task: Task, sizing: Sizing) -> Sizing | None:
    """Divide the batch into as many parts as the memory needs; None if not even one image fits."""
    hardware = Hardware(torch.device(task.profile.device), task.profile.precision, "")
    classes = task.classes if sizing.model.class_conditional else 0
    given = task.given_of("training")
    for checkpointing in (given["activation_checkpointing"],) if "activation_checkpointing" in given else (False, True):
        parts = [2**power for power in range(sizing.batch_size.bit_length()) if sizing.batch_size % 2**power == 0]
        for count in [given["accumulation_steps"]] if "accumulation_steps" in given else parts:
            part = -(-sizing.batch_size // count)
            names = (sizing.model, task.image_shape, classes, part, hardware, checkpointing)
            memory = training_memory(*names, batch=sizing.batch_size)
            if memory <= MEMORY_SHARE * task.profile.memory:
                slower = 4 / 3 if checkpointing else 1.0  # one forward pass more
                return replace(
                    sizing,
                    accumulation_steps=count,
                    activation_checkpointing=checkpointing,
                    memory=memory,
                    images_per_second=sizing.images_per_second / slower,
                    images=sizing.images / slower,
                )
    return None


def _power_of_two(count: int) -> int:
    """Return the largest power of two that is not above a number ≥ 1."""
    return 1 << (count.bit_length() - 1)
