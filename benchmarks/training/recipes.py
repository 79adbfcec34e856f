"""Compare recipes: train each for equal seconds on the same images, in turns, and score its samples."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.training import project
from benchmarks.training.learners import Ours
from benchmarks.training.networks import parameter_count
from benchmarks.training.processes import MODULE, call, make_project
from benchmarks.training.project import Digits
from benchmarks.training.quality import SAMPLE_BATCH, changed, scores_of, train
from benchmarks.training.results import FOLDER, Row

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.hardware import choose_hardware
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.metrics.classifier import Classifier, fit_classifier
from ddpm_kedro.metrics.extractor import FeatureExtractor
from ddpm_kedro.parameters import EvaluationParameters

FIXED = {
    "use.augmentation": "flips",
    "use.diffusion": "cosine_v",
    "use.optimizer": "adam",
    "use.training": "digits",
    "model.width": 32,
    "model.channel_multipliers": [2, 3],
    "model.blocks_per_level": 1,
    "model.attention_levels": [1],
    "model.norm_groups": 8,
    "model.dropout": 0.0,
    "model.patch_size": 2,
    "optimizer.lr": 3e-3,
    "optimizer.warmup_images": 6_400,
    "training.batch_size": 32,
    "training.ema_half_life": 2_200,
}
"""The same for all images of 32×32, whatever their number and the time, as in earlier versions: 1.7 M parameters."""
PIXELS = {"model.patch_size": 1, "model.width": 32, "model.channel_multipliers": [1, 2, 2], "optimizer.lr": 1.1e-3}
RECIPES: dict[str, dict[str, Any]] = {
    "chosen": {},  # the parameters that ingestion chooses for the images
    "fixed": FIXED,
    "edm": {"use.diffusion": "edm"},
    "half the learning rate": {"optimizer.lr": 1.5e-3},
    "batch 64": {"training.batch_size": 64},
    "long ema": {"training.ema_half_life": 10_000},
    "dropout": {"model.dropout": 0.1},
    "not augmented": {"use.augmentation": "none"},
    "non-leaking": {"use.augmentation": "non_leaking"},
    "pixels": PIXELS,
    "pixels, edm": {**PIXELS, "use.diffusion": "edm"},
}
"""Changes of the chosen parameters, by dotted names, as for ``kedro run --params``; lists are possible, too."""
IDENTITY = ("source", "name", "changes", "seconds", "seed", "guidance")
GUIDANCE = (1.0, 1.25, 1.5, 1.75)
STEPS = 10  # of DPM-Solver++
TINY = {"seconds": 0.2, "images": 20, "fit_images": 128}
TINY_RECIPES = ("chosen", "edm")


def prepare(source: Path, params: str, folder: Path = FOLDER / "recipes") -> Path:
    """Ingest the images of an archive or a folder into a project of their own; return its root.

    ``params`` are further parameters of the ingestion, such as ``images.size=32``.
    """
    root = folder / source.name
    for name in ("conf", "src"):
        shutil.rmtree(root / name, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    make_project(root)
    kind = "folder" if source.is_dir() else "archive"
    images = f"use.dataset={kind},dataset.path={source.resolve()},tracking.mode=disabled"
    call([*MODULE, "--pipelines", "data_ingestion", "--params", ",".join(filter(None, [images, params]))], root, {})
    return root


def images_of(root: Path, fit_images: int) -> Digits:
    """Load the images of a project and a classifier that is fitted to them once, and kept beside them.

    Raises:
        ValueError: if the images have no classes.
    """
    loaded = project.load(root, ["training_images", "holdout_images", "params:evaluation"])
    training: ImageStore = loaded["training_images"]
    if not training.class_names:
        raise ValueError(f"the images of {root.name} have no classes: there are no features to compare samples by")
    evaluation: EvaluationParameters = loaded["params:evaluation"]
    file = root / f"classifier_{training.made_by.fingerprint}_{fit_images}.pt"
    if file.exists():
        network = Classifier(training.image_shape[0], len(training.class_names))
        network.load_state_dict(torch.load(file, weights_only=True))
    else:
        network = fit_classifier(training, evaluation.model_copy(update={"fit_images": fit_images}))
        torch.save(network.state_dict(), file)
    fitted = FeatureExtractor(
        "classifier", network.eval(), training.image_shape, training.class_names, training.made_by
    )
    return Digits(project.parameters(root), training, loaded["holdout_images"], fitted)


def measure(
    root: Path,
    names: Sequence[str],
    images: Digits,
    seconds: float,
    seeds: Sequence[int],
    count: int,
    device: str = "cpu",
) -> Iterator[list[Row]]:
    """Train and score the recipes in turns, once per seed; yield the rows of each training, one per guidance scale."""
    for seed in seeds:
        for name in names:
            groups = project.parameters(root, RECIPES[name])
            described = {"source": root.name, "name": name, "changes": json.dumps(RECIPES[name]), "seed": seed}
            yield [described | row for row in train_and_score(groups, images, seconds, seed, count, device)]


def train_and_score(
    groups: dict[str, Any], images: Digits, seconds: float, seed: int, count: int, device: str
) -> list[Row]:
    """Train one recipe for these seconds; return a row per guidance scale."""
    groups = changed(groups, {"training.seed": seed})
    training, classes = groups["training"], bool(groups["model"].class_conditional)
    hardware = choose_hardware(device, "auto")
    learner = Ours(groups, images.training, hardware)
    seen = train(learner, images.training, training.batch_size, classes, seconds, seed, training.num_images)
    row = {
        "seconds": seconds,
        "images_seen": seen,
        "batch": training.batch_size,
        "parameters": parameter_count(learner.trainer.ema),
        "precision": hardware.precision,
        "images": count,
    }
    scales = GUIDANCE if classes and training.label_dropout else GUIDANCE[:1]
    return [row | {"guidance": scale} | score(learner, images, classes, scale, count) for scale in scales]


def score(learner: Ours, images: Digits, classes: bool, guidance: float, count: int) -> Row:
    """Sample with the EMA weights, classes as often as in the training images, and compare with the holdout images."""
    run, ema = learner.trainer.run, learner.trainer.ema
    labels = labels_of(images.training, count) if classes else None
    plan, parts = SamplingPlan(run.diffusion, "dpm_solver++", STEPS, guidance), []
    for part in torch.arange(count).split(SAMPLE_BATCH):
        own = None if labels is None else labels[part]
        parts.append(generate_images(ema, plan, run.image_shape, 1, part.tolist(), own, learner.hardware.autocast))
    samples = to_uint8(torch.cat(parts)).cpu().numpy()
    reference, _ = images.extractor(images.holdout.images)
    return scores_of(*images.extractor(samples), reference, labels)


def labels_of(store: ImageStore, count: int) -> torch.Tensor:
    """Return labels whose classes are as frequent as in the store, (count,) int64."""
    assert store.labels is not None
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(store.labels)[order[torch.arange(count) % len(store)]]


def summarised(rows: Sequence[Row]) -> list[Row]:
    """Return one row per recipe and guidance scale, with the KID of each seed and their mean, the lowest first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["name"], row["changes"], row["guidance"]), []).append(row)
    found = [_mean(each) for each in groups.values()]
    return sorted(found, key=lambda row: row["kid"])


def _mean(rows: Sequence[Row]) -> Row:
    means: Mapping[str, Any] = {
        name: sum(row[name] for row in rows) / len(rows)
        for name in ("images_seen", "kid", "fd", "accuracy")
        if rows[0][name] is not None
    }
    return {**rows[0], **means, "kids": [row["kid"] for row in sorted(rows, key=lambda row: row["seed"])]}
