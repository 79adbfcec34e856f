"""The evaluation pipeline."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.evaluation.nodes import (
    evaluate_samples,
    fit_feature_extractor,
    measure_loss_by_timestep,
)


def create_pipeline(**_: object) -> Pipeline:
    """Build the pipeline: samples, model and images → metrics, nearest_neighbours, loss_by_timestep."""
    return Pipeline(
        [
            Node(
                fit_feature_extractor,
                ["training_images", "params:evaluation"],
                "feature_extractor",
                name="fit_feature_extractor",
            ),
            Node(
                evaluate_samples,
                [
                    "samples",
                    "sampling_report",
                    "training_images",
                    "holdout_images",
                    "feature_extractor",
                    "params:evaluation",
                ],
                ["metrics", "nearest_neighbours"],
                name="evaluate_samples",
            ),
            Node(
                measure_loss_by_timestep,
                ["model", "holdout_images", "params:evaluation"],
                "loss_by_timestep",
                name="measure_loss_by_timestep",
            ),
        ],
        tags="evaluation",
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )
