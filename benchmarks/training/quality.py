"""Measure the quality of samples after equal training time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any

import torch
from benchmarks.training.learners import Learner, Ours
from benchmarks.training.networks import Shape, parameter_count
from benchmarks.training.peers import Diffusers, Lucidrains
from benchmarks.training.project import Digits
from benchmarks.training.results import Row
from benchmarks.training.step import timed

from ddpm_kedro.hardware import Hardware, choose_hardware
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.scores import frechet_distance, kernel_distance
from ddpm_kedro.parameters import OptimizerParameters
from ddpm_kedro.sampling.generation import DEFAULT_GUIDANCE
from ddpm_kedro.training.loader import StepPixels
from ddpm_kedro.training.randomness import batch_indices

IDENTITY = ("name", "lr", "seconds", "seed", "guidance")
SUBSETS, SUBSET = 50, 500  # of KID; a subset has at most all holdout images
WARMING = 0.05  # share of the time before the length of training is estimated
SAMPLE_BATCH = 250


@dataclass(frozen=True)
class Candidate:
    """A trainer with its settings.

    Attributes:
        project: ours, diffusers or lucidrains; ours has the default parameters with ``changes``.
        changes: of our parameters, by dotted names.
        guidance: scales of guidance, each evaluated separately.
        v: predict v with the cosine schedule in diffusers; see :class:`Diffusers`.
    """

    project: str
    width: int = 0
    multipliers: tuple[int, ...] = (1, 2, 2)
    attention: tuple[int, ...] = ()
    classes: bool = False
    batch: int = 32
    lr: float = 1e-3
    v: bool = False
    guidance: tuple[float, ...] = (1.0,)
    changes: Mapping[str, Any] = field(default_factory=dict)


GUIDED = (1.0, DEFAULT_GUIDANCE)
CANDIDATES = {
    "ours": Candidate("ours", classes=True, guidance=GUIDED),
    "ours-32": Candidate("ours", classes=True, guidance=GUIDED, changes={"model.width": 32}),
    "ours-32-pixels": Candidate(
        "ours",
        classes=True,
        guidance=GUIDED,
        changes={"model.patch_size": 1, "model.width": 32, "model.channel_multipliers": (1, 2, 2)},
    ),
    **{f"diffusers-{width}": Candidate("diffusers", width) for width in (16, 32, 64)},
    **{
        f"diffusers-{width}-classes": Candidate("diffusers", width, classes=True, guidance=GUIDED) for width in (16, 32)
    },
    **{f"diffusers-{width}-v": Candidate("diffusers", width, v=True) for width in (16, 32, 64)},
    **{
        f"diffusers-{width}-v-classes": Candidate("diffusers", width, classes=True, v=True, guidance=GUIDED)
        for width in (16, 32, 64)
    },
    "diffusers-32-v-classes-attention": Candidate(
        "diffusers", 32, attention=(1,), classes=True, v=True, guidance=GUIDED
    ),
    "diffusers-32-v-classes-4-levels": Candidate(
        "diffusers", 32, (1, 1, 2, 2), attention=(2,), classes=True, v=True, guidance=GUIDED
    ),
    **{f"lucidrains-{width}": Candidate("lucidrains", width) for width in (16, 24, 32, 64)},
    **{f"lucidrains-{width}-classes": Candidate("lucidrains", width, classes=True) for width in (16, 24, 32, 64)},
    "lucidrains-32-4-levels": Candidate("lucidrains", 32, (1, 2, 2, 2)),
}
"""All candidates: tuning is part of the result, and the page shows everything that was measured."""


def optimizer_of(candidate: Candidate, digits: Digits) -> OptimizerParameters:
    """Return a peer's optimizer: ours with another learning rate."""
    ours: OptimizerParameters = digits.groups["optimizer"]
    return ours.model_copy(update={"lr": candidate.lr})


def make(candidate: Candidate, digits: Digits, hardware: Hardware, seed: int) -> Learner:
    """Make the trainer of a candidate."""
    if candidate.project == "ours":
        return Ours(changed(digits.groups, {"training.seed": seed, **candidate.changes}), digits.training, hardware)
    torch.manual_seed(seed)
    channels, size, _ = digits.training.image_shape
    classes = len(digits.training.class_names) if candidate.classes else 0
    shape = Shape(candidate.width, candidate.multipliers, candidate.attention, 1, 8, channels, size, classes)
    kinds = {"lucidrains": Lucidrains, "diffusers": partial(Diffusers, v=candidate.v, ema=True)}
    peer: Learner = kinds[candidate.project](shape, optimizer_of(candidate, digits), hardware)
    return peer


def changed(groups: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with changes by dotted names."""
    groups = dict(groups)
    for name, value in changes.items():
        group, key = name.split(".")
        groups[group] = type(groups[group])(**{**groups[group].model_dump(), key: value})
    return groups


def train(learner: Learner, store: ImageStore, batch: int, classes: bool, seconds: float, seed: int, guess: int) -> int:
    """Train for a number of seconds, including the reading of images; return the number of images seen.

    The learning rate schedule ends with the time: after a warm-up, each step estimates from the speed so far how many
    images there will be.
    """
    pixels = StepPixels(store, seed, batch)
    labels = torch.from_numpy(store.labels) if classes and store.labels is not None else None
    index, length, start = 0, guess, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        if passed > WARMING * seconds:
            length = max(batch, int(index * batch * seconds / passed))
        chosen = None if labels is None else labels[batch_indices(seed, index, batch, len(store))]
        learner.step(index, pixels[index], chosen, length)
        index += 1
    return index * batch


def faster_precision(
    make_learner: Callable[[Hardware], Learner], store: ImageStore, batch: int, classes: bool
) -> Hardware:
    """Return fp32 or bf16, whichever is faster for a temporary learner; this time is not counted."""
    pixels = torch.from_numpy(store.images[:batch].copy())
    labels = torch.from_numpy(store.labels[:batch]) if classes and store.labels is not None else None
    taken = {}
    for precision in ("fp32", "bf16"):
        hardware = choose_hardware("cpu", precision)
        learner = make_learner(hardware)
        steps = [partial(learner.step, index, pixels, labels, 10**6) for index in range(6)]
        taken[hardware] = min([timed(step) for step in steps][1:])  # the first warms up
    return min(taken, key=lambda hardware: taken[hardware])


def resolved(name: str, digits: Digits, lr: float | None) -> Candidate:
    """Return a candidate with its parameters: ours by default, a peer with the given learning rate."""
    candidate = CANDIDATES[name]
    if candidate.project != "ours":
        return replace(candidate, lr=lr or candidate.lr)
    groups = changed(digits.groups, candidate.changes)
    return replace(
        candidate, width=groups["model"].width, batch=groups["training"].batch_size, lr=groups["optimizer"].lr
    )


def measure(name: str, digits: Digits, seconds: float, images: int, seed: int, lr: float | None) -> list[Row]:
    """Train, sample and evaluate one candidate; return a row per guidance scale."""
    candidate = resolved(name, digits, lr)
    hardware, batch, classes = choose_hardware("cpu", "auto"), candidate.batch, candidate.classes
    if candidate.project != "ours":
        hardware = faster_precision(
            lambda chosen: make(candidate, digits, chosen, seed), digits.training, batch, classes
        )
    learner = make(candidate, digits, hardware, seed)
    seen = train(learner, digits.training, batch, classes, seconds, seed, digits.groups["training"].num_images)
    row = {
        "name": name,
        "project": candidate.project,
        "width": candidate.width,
        "classes": classes,
        "batch": batch,
        "lr": candidate.lr,
        "parameters": parameter_count(learner.network),
        "precision": hardware.precision,
        "seconds": seconds,
        "seed": seed,
        "date": date.today().isoformat(),
        "images_seen": seen,
    }
    return [row | scores for scores in evaluate(learner, candidate, digits, images, seed)]


def evaluate(learner: Learner, candidate: Candidate, digits: Digits, images: int, seed: int) -> list[Row]:
    """Sample with each guidance scale and compute the scores."""
    found = []
    reference, _ = digits.extractor(digits.holdout.images)
    for guidance in candidate.guidance:
        torch.manual_seed(seed + 1)
        labels = torch.arange(images) % len(digits.training.class_names) if candidate.classes else None
        start = time.perf_counter()
        samples = to_uint8(sample(learner, labels, images, guidance)).numpy()
        taken = time.perf_counter() - start
        scores = scores_of(*digits.extractor(samples), reference, labels)
        found.append(scores | {"guidance": guidance, "sampling_seconds": taken, "images": images})
    return found


def sample(learner: Learner, labels: torch.Tensor | None, count: int, guidance: float) -> torch.Tensor:
    """Sample in batches."""
    parts = torch.arange(count).split(SAMPLE_BATCH)
    if isinstance(learner, Ours):  # the noise of an image follows from its number: one batch
        return learner.sample(labels, count, guidance)
    return torch.cat([learner.sample(None if labels is None else labels[part], len(part), guidance) for part in parts])


def scores_of(
    features: torch.Tensor, logits: torch.Tensor, reference: torch.Tensor, labels: torch.Tensor | None
) -> Row:
    """Compute KID and FD to the holdout, and the accuracy and mean confidence of the classifier."""
    kid, spread = kernel_distance(features, reference, SUBSETS, SUBSET)
    accuracy = None if labels is None else float((logits.argmax(1) == labels).float().mean())
    confidence = float(logits.softmax(1).amax(1).mean())
    fd = frechet_distance(features, reference)
    return {"kid": kid, "kid_spread": spread, "fd": fd, "accuracy": accuracy, "confidence": confidence}


def scores_of_real_images(digits: Digits, images: int) -> Row:
    """Compute the same scores for as many training images as there are samples."""
    chosen = torch.randperm(len(digits.training), generator=torch.Generator().manual_seed(0))[:images].numpy()
    labels = None if digits.training.labels is None else torch.from_numpy(digits.training.labels[chosen])
    reference, _ = digits.extractor(digits.holdout.images)
    return scores_of(*digits.extractor(digits.training.images[chosen]), reference, labels)
