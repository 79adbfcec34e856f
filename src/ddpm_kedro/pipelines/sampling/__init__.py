"""From an exported model to samples."""

from ddpm_kedro.pipelines.sampling.pipeline import create_pipeline as create_pipeline
