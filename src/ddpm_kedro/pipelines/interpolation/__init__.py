"""From two seeds to what lies between."""

from ddpm_kedro.pipelines.interpolation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
