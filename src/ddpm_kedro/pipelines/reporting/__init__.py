"""From what a run left to plots, pictures and a page."""

from ddpm_kedro.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
