"""The evaluation pipeline."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.evaluation.nodes import evaluate_samples, fit_feature_extractor, measure_loss_by_timestep


def create_pipeline(**_: object) -> Pipeline:
    """Build the pipeline: samples, model and images → metrics, nearest_neighbours, loss_by_timestep."""
    parameters, extractor = "params:evaluation", "feature_extractor"
    fit = ["training_images", parameters, "sampling_report"]
    samples = ["samples", "sampling_report", "training_images", "holdout_images", extractor, parameters]
    model = ["model", "holdout_images", parameters]
    return Pipeline(
        [
            Node(fit_feature_extractor, fit, extractor, name="fit_feature_extractor"),
            Node(evaluate_samples, samples, ["metrics", "nearest_neighbours"], name="evaluate_samples"),
            Node(measure_loss_by_timestep, model, "loss_by_timestep", name="measure_loss_by_timestep"),
        ],
        tags="evaluation",
        namespace="evaluation",
        prefix_datasets_with_namespace=False,
    )
