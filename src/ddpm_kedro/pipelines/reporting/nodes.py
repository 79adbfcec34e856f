"""Show a run: curves, samples during training, the way from noise to images, and everything on one page."""

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image, ImageOps

from ddpm_kedro.diffusion import SamplingPlan, generate_images
from ddpm_kedro.images.pixels import to_uint8
from ddpm_kedro.metrics.table import COLUMNS, Metrics
from ddpm_kedro.models import TrainedModel
from ddpm_kedro.parameters import ReportingParameters
from ddpm_kedro.provenance import flatten
from ddpm_kedro.reporting.animation import Frames
from ddpm_kedro.reporting.curves import loss_by_timestep_curve, training_curves
from ddpm_kedro.reporting.grid import GAP, add_title, stack, titled_rows
from ddpm_kedro.reporting.overview import curves_note, data_set_name, explanations, is_of_this_training, overview
from ddpm_kedro.reporting.page import render_page
from ddpm_kedro.training.run import Row
from ddpm_kedro.training.verdict import training_verdict


def plot_training(training_history: list[Row]) -> go.Figure:
    """Plot loss, validation loss and learning rate over images seen."""
    return training_curves(training_history)


def plot_loss_by_timestep(loss_by_timestep: list[dict[str, float]]) -> go.Figure:
    """Plot the loss of the exported model at each noise level."""
    return loss_by_timestep_curve(loss_by_timestep)


def film_training(
    training_previews: dict[str, Callable[[], Image.Image]], model: TrainedModel, reporting: ReportingParameters
) -> tuple[Image.Image, Frames]:
    """Show the previews of the model's training run, in one image and as an animation."""
    names = sorted(name for name in training_previews if name.startswith(f"{model.run_id}/"))
    chosen = np.linspace(0, len(names) - 1, min(len(names), reporting.film_frames)).astype(int)
    previews = {f"{int(names[index].rsplit('_', 1)[1]):,}": training_previews[names[index]]() for index in chosen}
    previews = previews or {"no previews": Image.new("RGB", (400, 60), "white")}
    frames = [add_title(ImageOps.expand(preview, GAP, "white"), title) for title, preview in previews.items()]
    return stack(frames), Frames(frames)


def draw_trajectory(model: TrainedModel, reporting: ReportingParameters) -> Image.Image:
    """Show how noise becomes images: x_t and the predicted x_0 at every step, from left to right."""
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
    return titled_rows([torch.stack(row).numpy() for row in rows], ["noised", "predicted"] * count)


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
    """Render everything as one page of HTML that needs no other file."""
    return render_page(
        model=model,
        metrics=metrics,
        data_set=data_set_name(ingestion_report),
        overview=overview(model, metrics, ingestion_report, training_history),
        training_verdict=_judge_training(model, ingestion_report, training_history),
        curves_note=curves_note(model, training_history),
        metric_columns=COLUMNS,
        explanations=explanations(metrics),
        training_plot=training_plot,
        loss_by_timestep_plot=loss_by_timestep_plot,
        samples_grid=samples_grid,
        nearest_neighbours=nearest_neighbours,
        filmstrip=filmstrip,
        training_film=training_film,
        denoising_trajectory=denoising_trajectory,
        contact_sheet=contact_sheet,
        parameters=flatten(model.made_by.parameters | metrics.made_by.parameters),
    )


def _judge_training(model: TrainedModel, ingestion: dict[str, Any], history: list[Row]) -> list[str]:
    """Return the verdict on the model's training; no sentence if the history is of another one."""
    if not is_of_this_training(model, history):
        return []
    return training_verdict(history, model.made_by.parameters, ingestion["training"]["images"]).sentences
