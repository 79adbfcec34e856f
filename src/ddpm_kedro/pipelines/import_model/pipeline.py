"""The wiring of the import."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.import_model.nodes import convert_model


def create_pipeline(**_: object) -> Pipeline:
    """model_to_import → model, to sample from, and imported_model, which stays there for fine-tuning."""
    return Pipeline(
        [
            Node(
                convert_model,
                ["model_to_import", "params:import_model"],
                ["model", "imported_model"],
                name="convert_model",
            ),
        ],
        tags="import_model",
        namespace="import_model",
        prefix_datasets_with_namespace=False,
    )
