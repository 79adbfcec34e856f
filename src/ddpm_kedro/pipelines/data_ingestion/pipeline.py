"""Pipeline of data ingestion."""

from kedro.pipeline import Node, Pipeline

from ddpm_kedro.pipelines.data_ingestion.nodes import (
    download_images,
    plan_training,
    prepare_images,
    report_ingestion,
)


def create_pipeline(**_: object) -> Pipeline:
    """Build params:dataset → raw_images → training_images, holdout_images → report, contact sheet, plan."""
    images = ["training_images", "holdout_images"]
    report = ["ingestion_report", "contact_sheet"]
    groups = ["params:dataset", "params:images", "params:plan"]
    known = ["training_images", "raw_images", "device_profile", *groups, "plan_request"]
    return Pipeline(
        [
            Node(download_images, ["params:dataset", "earlier_images"], "raw_images", name="download_images"),
            Node(prepare_images, ["raw_images", "params:images"], images, name="prepare_images"),
            Node(report_ingestion, [*images, "raw_images"], report, name="report_ingestion"),
            Node(plan_training, known, "chosen_parameters", name="plan_training"),
        ],
        tags="data_ingestion",
        namespace="data_ingestion",
        prefix_datasets_with_namespace=False,
    )
