"""Ingest a source: uint8 images for training and holdout."""

from ddpm_kedro.pipelines.data_ingestion.pipeline import create_pipeline as create_pipeline
