"""The pipeline that samples with an exported model."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.sampling.nodes import render_samples, sample_images


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model → samples, sampling_report → samples_grid, sample_files."""
    nodes = [
        Node(sample_images, ["model", "params:sampling"], ["samples", "sampling_report"], name="sample_images"),
        Node(render_samples, "samples", ["samples_grid", "sample_files"], name="render_samples"),
    ]
    return Pipeline(nodes, tags="sampling", namespace="sampling", prefix_datasets_with_namespace=False)
