"""The figures of a run, and its report."""

from ddpm_kedro.pipelines.reporting.pipeline import create_pipeline as create_pipeline
