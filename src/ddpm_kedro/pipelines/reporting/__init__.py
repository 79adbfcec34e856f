"""The figures of a run, and its report."""

from ddpm_kedro.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
