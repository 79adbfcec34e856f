"""The evaluation of samples by metrics."""

from ddpm_kedro.pipelines.evaluation.pipeline import create_pipeline as create_pipeline
