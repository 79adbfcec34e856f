"""Show a run: curves, samples over training, how noise becomes an image, and all of it on one page."""

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.metrics.table import Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ReportingParameters
from ddpm_kedro.reporting.animation import Frames
from ddpm_kedro.reporting.curves import loss_by_timestep_curve, training_curves
from ddpm_kedro.reporting.fonts import legend
from ddpm_kedro.reporting.grid import rows_of_tiles, stacked
from ddpm_kedro.reporting.page import Page
from ddpm_kedro.training.run import Row

CHANNELS = {1: "grey", 3: "colour"}


def plot_training(training_history: list[Row]) -> go.Figure:
    """Loss, validation loss and learning rate over images seen."""
    return training_curves(training_history)


def plot_loss_by_timestep(loss_by_timestep: list[dict[str, float]]) -> go.Figure:
    """Where along the noise the exported model errs."""
    return loss_by_timestep_curve(loss_by_timestep)


def film_training(
    training_previews: dict[str, Callable[[], Image.Image]], model: TrainedModel, reporting: ReportingParameters
) -> tuple[Image.Image, Frames]:
    """Samples over training: one below the other, and one after the other."""
    names = sorted(name for name in training_previews if name.startswith(f"{model.run_id}/"))
    if not names:
        empty = stacked([Image.new("RGB", (400, 60), "white")], ["no previews"])
        return empty, Frames([empty])
    spread = np.linspace(0, len(names) - 1, min(len(names), reporting.film_frames)).astype(int)
    chosen = [names[index] for index in spread]
    titles = [f"{int(name.rsplit('_', 1)[1]):,}" for name in chosen]
    pictures = [training_previews[name]() for name in chosen]
    return stacked(pictures, titles), Frames(
        [stacked([picture], [title]) for picture, title in zip(pictures, titles, strict=True)]
    )


def draw_trajectory(model: TrainedModel, reporting: ReportingParameters) -> Image.Image:
    """How noise becomes images: x_t and the predicted x_0 at every step, from left to right."""
    count = reporting.trajectory_images
    classes = len(model.class_names)
    labels = torch.arange(count) % classes if classes else None
    plan = SamplingPlan(model.diffusion, "ddim", min(reporting.trajectory_steps, model.diffusion.num_timesteps))
    noised: list[torch.Tensor] = []
    predicted: list[torch.Tensor] = []

    def callback(x: torch.Tensor, x0: torch.Tensor) -> None:
        noised.append(to_uint8(x))
        predicted.append(to_uint8(x0))

    generate_images(model.network, plan, model.image_shape, 0, range(count), labels, callback=callback)
    rows = [row for image in range(count) for row in ([x[image] for x in noised], [x[image] for x in predicted])]
    names = ["noised", "predicted"] * count
    return rows_of_tiles([torch.stack(row).numpy() for row in rows], names)


def write_report(
    model: TrainedModel,
    metrics: Metrics,
    ingestion_report: dict[str, Any],
    training_history: list[Row],
    training_plot: go.Figure,
    loss_by_timestep_plot: go.Figure,
    samples_grid: Image.Image,
    nearest_neighbours: Image.Image,
    filmstrip: Image.Image,
    training_film: Frames,
    denoising_trajectory: Image.Image,
    contact_sheet: Image.Image,
) -> str:
    """One page of HTML with everything in it, to keep or to mail."""
    page = Page(f"Run {model.run_id}")
    page.facts(_facts(model, metrics, ingestion_report))
    if training_history[-1]["images_seen"] != model.images_seen:
        page.note(
            "The curves are of another training than the model: they end at "
            f"{training_history[-1]['images_seen']:,.0f} images, and the model has seen {model.images_seen:,}."
        )
    page.picture("Samples", samples_grid)
    page.metrics("How good they are", metrics)
    page.picture(
        "Are they new?",
        nearest_neighbours,
        f"{metrics.copying['verdict'].capitalize()}. The samples that are most like one training image, each above "
        "that image; the number is their distance in grey levels of 255.",
    )
    page.figure("Training", training_plot)
    page.figure("Validation loss by timestep", loss_by_timestep_plot)
    page.picture("Samples over training", filmstrip, "With the number of images seen.")
    page.film("As a film", training_film)
    page.picture("From noise to images", denoising_trajectory, "What the network was given, and what it made of it.")
    page.picture("Training images", contact_sheet)
    page.parameters("Parameters", model.made_by.parameters | metrics.made_by.parameters)
    return page.html()


def _facts(model: TrainedModel, metrics: Metrics, ingestion: dict[str, Any]) -> dict[str, str]:
    """What was trained on what, in words."""
    channels, height, width = model.image_shape
    weights = sum(weight.numel() for weight in model.network.parameters())
    drawn, numbers = metrics.samples, legend(model.class_names)
    return {
        "Trained on": f"{ingestion['training']['images']:,} images of {height}×{width} pixels, "
        f"{CHANNELS.get(channels, f'{channels} channels')}, {len(model.class_names) or 'no'} classes",
        "Model": f"U-Net with {weights:,} parameters, {model.diffusion.schedule} schedule, predicts "
        f"{model.diffusion.target}; {model.images_seen:,} images seen; averaged weights (EMA)",
        "Samples": f"{drawn['num_images']:,} in {drawn['seconds']:.1f} s: {drawn['num_inference_steps']} steps of "
        f"{drawn['sampler']}, guidance {drawn['guidance_scale']:g}, "
        f"{drawn['network_evaluations']} network evaluations each",
    } | ({"Numbers in grids": numbers} if numbers else {})
