"""From a part of an image to the whole."""

from ddpm_kedro.pipelines.inpainting.pipeline import create_pipeline as create_pipeline
