"""From a named source to uint8 images for training and hold-out."""

from ddpm_kedro.pipelines.data_ingestion.pipeline import create_pipeline as create_pipeline
