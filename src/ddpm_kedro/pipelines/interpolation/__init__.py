"""From the images of one seed to the images of another."""

from ddpm_kedro.pipelines.interpolation.pipeline import create_pipeline as create_pipeline
