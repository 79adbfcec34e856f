"""The wiring of model training."""

import warnings

from kedro.pipeline import Node, Pipeline
from kedro.utils import KedroExperimentalWarning

from ddpm_kedro.pipelines.model_training.nodes import (
    augment_images,
    export_model,
    export_to_diffusers,
    train_model,
)
from ddpm_kedro.reporting.diagram import NETWORK_PREVIEW


def create_pipeline(**_: object) -> Pipeline:
    """training_images → augmented_images → checkpoint, history and previews → model → diffusers_model."""
    warnings.filterwarnings("ignore", "The 'preview_fn' feature", KedroExperimentalWarning)  # tested with this Kedro
    return Pipeline(
        [
            Node(
                augment_images,
                ["training_images", "params:augmentation", "params:training"],
                ["augmented_images", "augmentation_preview"],
                name="augment_images",
            ),
            Node(
                train_model,
                [
                    "augmented_images",
                    "holdout_images",
                    "resume_checkpoint",
                    "stop_request",
                    "params:model",
                    "params:diffusion",
                    "params:optimizer",
                    "params:training",
                    "initial_model",
                ],
                # The checkpoint last: see hooks.graceful_stop.
                ["training_previews", "training_history", "best_checkpoint", "checkpoint"],
                name="train_model",
                preview_fn=NETWORK_PREVIEW,
            ),
            Node(export_model, ["checkpoint", "best_checkpoint", "params:training"], "model", name="export_model"),
            Node(export_to_diffusers, "model", "diffusers_model", name="export_to_diffusers"),
        ],
        tags="model_training",
        namespace="model_training",
        prefix_datasets_with_namespace=False,
    )
