"""The pipeline for variations of images."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.image_to_image.nodes import vary_images


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model and images → variations."""
    inputs = ["model", "holdout_images", "given_picture", "params:sampling", "params:image_to_image"]
    inputs += ["params:images"]
    nodes = [Node(vary_images, inputs, "variations", name="vary_images")]
    return Pipeline(nodes, tags="image_to_image", namespace="image_to_image", prefix_datasets_with_namespace=False)
