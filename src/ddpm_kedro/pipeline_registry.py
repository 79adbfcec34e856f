"""The pipelines of the project."""

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline


def register_pipelines() -> dict[str, Pipeline]:
    """Every pipeline by name; ``__default__`` is the main job, from images to samples."""
    pipelines = find_pipelines(raise_errors=True)
    main_job = ("data_ingestion", "model_training", "sampling", "evaluation", "reporting")
    pipelines["__default__"] = sum((pipelines[name] for name in main_job if name in pipelines), Pipeline([]))
    return pipelines
