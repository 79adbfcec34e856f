"""The pipeline that imports a model."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.import_model.nodes import convert_model


def create_pipeline(**_: object) -> Pipeline:
    """Create the pipeline: model_to_import → model, for sampling, and imported_model, kept for fine-tuning."""
    inputs, outputs = ["model_to_import", "params:import_model"], ["model", "imported_model"]
    nodes = [Node(convert_model, inputs, outputs, name="convert_model")]
    return Pipeline(nodes, tags="import_model", namespace="import_model", prefix_datasets_with_namespace=False)
