"""From diffusers' format to a model of this project."""

from ddpm_kedro.pipelines.import_model.pipeline import create_pipeline

__all__ = ["create_pipeline"]
