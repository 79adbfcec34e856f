"""Pipeline of data ingestion."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.data_ingestion.nodes import (
    choose_parameters,
    download_images,
    prepare_images,
    report_ingestion,
)


def create_pipeline(**_: object) -> Pipeline:
    """Build params:dataset → raw_images → training_images, holdout_images → report, contact sheet, parameters."""
    images = ["training_images", "holdout_images"]
    report = ["ingestion_report", "contact_sheet"]
    known = ["training_images", "raw_images", "params:dataset", "params:images", "trained_parameters"]
    return Pipeline(
        [
            Node(download_images, ["params:dataset", "earlier_images"], "raw_images", name="download_images"),
            Node(prepare_images, ["raw_images", "params:images"], images, name="prepare_images"),
            Node(report_ingestion, [*images, "raw_images"], report, name="report_ingestion"),
            Node(choose_parameters, known, "chosen_parameters", name="choose_parameters"),
        ],
        tags="data_ingestion",
        namespace="data_ingestion",
        prefix_datasets_with_namespace=False,
    )
