"""From images to an exported model."""

from ddpm_kedro.pipelines.model_training.pipeline import create_pipeline as create_pipeline
