"""From images to variations of them."""

from ddpm_kedro.pipelines.image_to_image.pipeline import create_pipeline as create_pipeline
