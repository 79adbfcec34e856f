"""The pipeline for interpolation between seeds."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.interpolation.nodes import interpolate_seeds


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model → interpolated."""
    inputs = ["model", "params:sampling", "params:interpolation"]
    nodes = [Node(interpolate_seeds, inputs, "interpolated", name="interpolate_seeds")]
    return Pipeline(nodes, tags="interpolation", namespace="interpolation", prefix_datasets_with_namespace=False)
