"""A training run: its parameters, its inputs, and its checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.models import RunRecord, TrainedModel, weights_fingerprint
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.provenance import Provenance

Row = dict[str, float]
"""One row of the history: ``images_seen`` and the values measured there."""


@dataclass(frozen=True)
class Run:
    """Everything that a training needs to know: runs with equal records give equal weights.

    Attributes:
        training_images: their fingerprint.
        initial_model: fingerprint of the initial weights; None for random ones.
        initial_weights: the weights themselves.
        image_shape, class_names, continued_from, tracking_id: see :class:`~ddpm_kedro.models.RunRecord`.
    """

    model: ModelParameters
    diffusion: DiffusionParameters
    augmentation: AugmentationParameters
    optimizer: OptimizerParameters
    training: TrainingParameters
    training_images: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    initial_model: str | None = None
    initial_weights: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)
    continued_from: str | None = None
    tracking_id: str | None = None

    @classmethod
    def of(
        cls,
        images: AugmentedImages,
        model: ModelParameters,
        diffusion: DiffusionParameters,
        optimizer: OptimizerParameters,
        training: TrainingParameters,
        initial_model: TrainedModel | None = None,
    ) -> Self:
        """Return the run with these images and parameters, from the weights of a model or from random ones.

        Raises:
            UserError: if the initial model is not the network that this run trains.
        """
        weights = None if initial_model is None else initial_model.network.state_dict()
        run = cls(
            model=model,
            diffusion=diffusion,
            augmentation=images.parameters,
            optimizer=optimizer,
            training=training,
            training_images=images.store.made_by.fingerprint,
            image_shape=images.store.image_shape,
            class_names=images.store.class_names if model.class_conditional else (),
            initial_model=None if weights is None else weights_fingerprint(weights),
            initial_weights=weights,
        )
        if initial_model is not None:
            _check_same_network(run.record, initial_model.record)
        return run

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> Self:
        """Return the run of a node's inputs, by their names in the catalog."""
        model, diffusion, optimizer, training = (
            inputs[f"params:{name}"] for name in ("model", "diffusion", "optimizer", "training")
        )
        images, initial_model = inputs["augmented_images"], inputs.get("initial_model")
        return cls.of(images, model, diffusion, optimizer, training, initial_model)

    @cached_property
    def record(self) -> RunRecord:
        """Return the record that checkpoints and the exported model of this run share."""
        groups = ("model", "diffusion", "augmentation", "optimizer", "training")
        inputs = {name: getattr(self, name) for name in ("training_images", "initial_model", "continued_from")}
        made_by = Provenance(
            {name: getattr(self, name).fingerprint_fields() for name in groups},
            {name: value for name, value in inputs.items() if value is not None},
        )
        return RunRecord(made_by, self.image_shape, self.class_names, self.tracking_id or made_by.fingerprint)

    @property
    def run_id(self) -> str:
        """Return the name that equal runs share."""
        return self.record.run_id

    @property
    def preview_guidance_scale(self) -> float:
        """Return the guidance of previews; 1 without classes and for a network that never sees the empty label."""
        p = self.training
        return p.preview_guidance_scale if self.class_names and p.label_dropout else 1.0

    @property
    def num_steps(self) -> int:
        """Return the number of steps; the last batch is a full one."""
        return -(-self.training.num_images // self.training.batch_size)

    @property
    def num_images(self) -> int:
        """Return the number of images seen after the last step."""
        return self.num_steps * self.training.batch_size


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run, as tensors and plain data.

    Attributes:
        record: record of the run.
        images_seen: number of images seen so far; it determines the next batch, its noise and the learning rate.
        network, ema, optimizer, scaler: state dicts.
        history: all rows so far.
        meter: sums since the last row.
        best_validation_loss: lowest validation loss of all checkpoints so far, including this one.
        trained_on: device and precision of the last process; empty if unknown.
    """

    record: RunRecord
    images_seen: int
    network: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    history: list[Row]
    meter: Row
    best_validation_loss: float = math.inf
    trained_on: str = ""

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.record.run_id

    def as_dict(self) -> dict[str, Any]:
        """Return tensors and plain data, for a file."""
        return vars(self) | {"record": self.record.as_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild the checkpoint from the result of :meth:`as_dict`."""
        return cls(**{**content, "record": RunRecord.from_dict(content["record"])})


def _check_same_network(run: RunRecord, initial: RunRecord) -> None:
    if changes := run.network_differences(initial):
        raise UserError(
            "training.initial_model is not the network that these parameters and images make. There: "
            f"{'; '.join(changes)}. Take over its model parameters (lists go into conf/local/parameters.yml), use "
            "images of its shape, and model.class_conditional=false for a model without classes; or start from another "
            "model."
        )
