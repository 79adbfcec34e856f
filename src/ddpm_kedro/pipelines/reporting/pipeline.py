"""The reporting pipeline."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.reporting.nodes import (
    draw_trajectory,
    film_training,
    plot_loss_by_timestep,
    plot_training,
    write_report,
)

DATA = ["model", "metrics", "ingestion_report", "training_history"]
FIGURES = ["training_plot", "loss_by_timestep_plot", "samples_grid", "nearest_neighbours", "filmstrip", "training_film"]
FIGURES += ["denoising_trajectory", "contact_sheet"]


def create_pipeline(**_: object) -> Pipeline:
    """Build the pipeline: history, previews, model, samples and metrics → plots, figures and report."""
    previews = ["training_previews", "model", "params:reporting"]
    return Pipeline(
        [
            Node(plot_training, "training_history", "training_plot", name="plot_training"),
            Node(plot_loss_by_timestep, "loss_by_timestep", "loss_by_timestep_plot", name="plot_loss_by_timestep"),
            Node(film_training, previews, ["filmstrip", "training_film"], name="film_training"),
            Node(draw_trajectory, ["model", "params:reporting"], "denoising_trajectory", name="draw_trajectory"),
            Node(write_report, [*DATA, *FIGURES], "report", name="write_report"),
        ],
        tags="reporting",
        namespace="reporting",
        prefix_datasets_with_namespace=False,
    )
