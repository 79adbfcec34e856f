"""Import a model in diffusers' format."""

from ddpm_kedro.pipelines.import_model.pipeline import create_pipeline as create_pipeline
