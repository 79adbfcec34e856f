"""The pipeline for inpainting."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.inpainting.nodes import fill_in


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model, images and mask → inpainted."""
    inputs = ["model", "holdout_images", "given_picture", "given_mask", "params:sampling", "params:inpainting"]
    inputs += ["params:images"]
    nodes = [Node(fill_in, inputs, "inpainted", name="fill_in")]
    return Pipeline(nodes, tags="inpainting", namespace="inpainting", prefix_datasets_with_namespace=False)
