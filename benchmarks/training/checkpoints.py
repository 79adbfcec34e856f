"""Measure how samples improve during training, from the checkpoints that a run kept."""

from itertools import pairwise
from pathlib import Path

import torch
from benchmarks.training.page import table
from benchmarks.training.project import Digits
from benchmarks.training.quality import scores_of, scores_of_real_images
from benchmarks.training.results import Row

from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.parameters import SamplingParameters
from ddpm_kedro.pipelines.model_training.nodes import export_model
from ddpm_kedro.sampling.generation import generate, sampling_plan
from ddpm_kedro.training.run import Checkpoint


def measure(data: Path, images: Digits, sampling: SamplingParameters, count: int) -> list[Row]:
    """Return a row per checkpoint of the latest run, the earliest first, measured with EMA weights.

    Args:
        data: the data folder; its ``06_models/checkpoint.pt`` is the latest checkpoint.
        images: the reference images and the feature extractor.
        sampling: parameters of sampling.
        count: number of samples.
    """
    latest = _read(data / "06_models" / "checkpoint.pt")
    earlier = sorted((data / "runs" / latest.run_id / "checkpoints").glob("images_seen_*.pt"))
    reference, _ = images.extractor(images.holdout.images)
    rows = []
    for checkpoint in [*map(_read, earlier), latest]:
        model = export_model(checkpoint, None, images.groups["training"])
        classes = len(model.class_names)
        labels = torch.arange(count) % classes if classes else None
        samples, _ = generate(model, sampling_plan(model, sampling), sampling, labels, count)
        scores = scores_of(*images.extractor(samples), reference, labels)
        rows.append(scores | {"images_seen": checkpoint.images_seen, "seconds": seconds_of(checkpoint)})
    return rows


def seconds_of(checkpoint: Checkpoint) -> float:
    """Return the seconds of training, without validations, previews and checkpoints."""
    rows = [{"images_seen": 0.0}, *checkpoint.history]
    return sum(
        (row["images_seen"] - previous["images_seen"]) / row["images_per_second"] for previous, row in pairwise(rows)
    )


def report(rows: list[Row], images: Digits, count: int) -> str:
    """Return a table in Markdown; its last line has the scores of ``count`` training images."""
    header = ("images seen", "seconds of training", "KID ± deviation", "FD", "classifier agrees")
    lines = [(f"{row['images_seen']:,}", f"{row['seconds']:.0f}", *_cells(row)) for row in rows]
    return table(header, [*lines, ("real training images", "", *_cells(scores_of_real_images(images, count)))])


def _cells(row: Row) -> tuple[str, str, str]:
    agrees = "" if row["accuracy"] is None else f"{row['accuracy']:.0%}"
    return f"{row['kid']:.2f} ± {row['kid_spread']:.2f}", f"{row['fd']:.1f}", agrees


def _read(file: Path) -> Checkpoint:
    checkpoint = CheckpointDataset(filepath=str(file), archive=str(file.parent)).load()
    if checkpoint is None:
        raise FileNotFoundError(file)
    return checkpoint
