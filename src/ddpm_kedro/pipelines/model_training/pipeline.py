"""The wiring of model training."""

import warnings

from kedro.pipeline import Node, Pipeline
from kedro.utils import KedroExperimentalWarning

from ddpm_kedro.pipelines.model_training.nodes import (
    augment_images,
    export_model,
    export_to_diffusers,
    make_resume_plan,
    train_model,
)
from ddpm_kedro.reporting.diagram import NETWORK_PREVIEW


def create_pipeline(**_: object) -> Pipeline:
    """Return the pipeline: training_images → checkpoint, history and previews → model → diffusers_model."""
    warnings.filterwarnings("ignore", "The 'preview_fn' feature", KedroExperimentalWarning)  # works in Kedro 1.7
    images = ["training_images", "params:augmentation", "params:training"]
    groups = ["params:model", "params:diffusion", "params:optimizer", "params:training"]
    run = ["augmented_images", "resume_checkpoint", *groups, "initial_model"]
    training = ["augmented_images", "holdout_images", "resume_plan", "stop_request"]
    # The checkpoint last: the process may end when it is saved, see hooks.graceful_stop.
    trained = ["training_previews", "training_history", "best_checkpoint", "checkpoint"]
    return Pipeline(
        [
            Node(augment_images, images, ["augmented_images", "augmentation_preview"], name="augment_images"),
            Node(make_resume_plan, run, "resume_plan", name="make_resume_plan"),
            Node(train_model, training, trained, name="train_model", preview_fn=NETWORK_PREVIEW),
            Node(export_model, ["checkpoint", "best_checkpoint", "params:training"], "model", name="export_model"),
            Node(export_to_diffusers, "model", "diffusers_model", name="export_to_diffusers"),
        ],
        tags="model_training",
        namespace="model_training",
        prefix_datasets_with_namespace=False,
    )
