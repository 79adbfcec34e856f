"""The pipeline for interpolation between seeds."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.interpolation.nodes import interpolate_seeds


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model → interpolated."""
    return Pipeline(
        [
            Node(
                interpolate_seeds,
                ["model", "params:sampling", "params:interpolation"],
                "interpolated",
                name="interpolate_seeds",
            )
        ],
        tags="interpolation",
        namespace="interpolation",
        prefix_datasets_with_namespace=False,
    )
