"""The beginning of the report: what was trained on what, when, where and for how long."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ddpm_kedro.metrics.table import EXPLANATIONS, Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.progress import passes
from ddpm_kedro.reporting.fonts import legend
from ddpm_kedro.training.run import Row
from ddpm_kedro.training.verdict import training_seconds

CHANNELS = {1: "grey", 3: "colour"}
NAMED = 10  # class names in the overview, at most


def data_set_name(ingestion: dict[str, Any]) -> str:
    """Return the name of the data set, as ingestion knew it."""
    raw = ingestion.get("raw", {})
    return str(raw.get("name", raw.get("source", "unknown")))


def curves_note(model: TrainedModel, history: Sequence[Row]) -> str:
    """Return why the curves do not end at the model; empty if they do."""
    end, seen = f"{history[-1]['images_seen']:,.0f}", f"{model.images_seen:,}"
    if history[-1]["images_seen"] == model.images_seen:
        return ""
    if is_of_this_training(model, history):
        return f"The model is the checkpoint with the lowest validation loss: {seen} images. The curves end at {end}."
    return f"The curves belong to another training run: they end at {end} images, but the model has seen {seen}."


def is_of_this_training(model: TrainedModel, history: Sequence[Row]) -> bool:
    """Return whether the history may be of the model's training: it has a row where the model was exported."""
    return any(row["images_seen"] == model.images_seen for row in history)


def overview(
    model: TrainedModel, metrics: Metrics, ingestion: dict[str, Any], history: Sequence[Row]
) -> dict[str, str]:
    """Describe data set, date, model, training and samples in one line each; leave out what is not known."""
    weights = sum(weight.numel() for weight in model.network.parameters())
    report = metrics.samples
    lines = {
        "Run": model.run_id,
        "Data set": _data_set(model, ingestion),
        "Date": report.get("date", ""),
        "Model": f"U-Net with {weights:,} parameters (EMA weights), {model.diffusion.schedule} schedule, predicts "
        f"{model.diffusion.target}",
        "Training": _training(model, ingestion, history),
        "Samples": f"{report['num_images']:,} in {report['seconds']:.1f} s on {report.get('device', 'unknown')}: "
        f"{report['num_inference_steps']} steps of {report['sampler']}, guidance {report['guidance_scale']:g}, "
        f"{report['network_evaluations']} network evaluations each",
        "Numbers in grids": legend(model.class_names),
    }
    return {name: line for name, line in lines.items() if line}


def explanations(metrics: Metrics) -> dict[str, str]:
    """Return one sentence per metric that the table shows, without the extractor's name."""
    names = dict.fromkeys(score.name.partition("(")[0] for score in metrics.scores)
    return {name: EXPLANATIONS[name] for name in names if name in EXPLANATIONS}


def _data_set(model: TrainedModel, ingestion: dict[str, Any]) -> str:
    channels, height, width = model.image_shape
    names = model.class_names
    listed = f" ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})" if names else ""
    holdout = ingestion.get("holdout", {}).get("images")
    return (
        f"{data_set_name(ingestion)}: {ingestion['training']['images']:,} images of {height}×{width} pixels, "
        f"{CHANNELS.get(channels, f'{channels} channels')}, {len(names) or 'no'} classes{listed}"
        f"{f'; {holdout:,} holdout images' if holdout else ''}"
    )


def _training(model: TrainedModel, ingestion: dict[str, Any], history: Sequence[Row]) -> str:
    parts = [f"{model.images_seen:,} images seen", passes(model.images_seen, ingestion["training"]["images"])]
    if is_of_this_training(model, history) and (seconds := training_seconds(history)):
        parts.append(f"{timedelta(seconds=round(seconds))} (h:mm:ss)")
    return f"{', '.join(parts)}{f' on {model.trained_on}' if model.trained_on else ''}"
