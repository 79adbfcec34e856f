"""From an exported model to samples."""

from ddpm_kedro.pipelines.sampling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
