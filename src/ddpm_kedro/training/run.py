"""What a training run is: its parameters, its name, and where it stands."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.models import TrainedModel, weights_fingerprint
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.provenance import Provenance, differences

NOT_OF_THE_NETWORK = {"dropout", "class_conditional"}  # the number of classes tells what the latter does
Row = dict[str, float]
"""One row of the history: ``images_seen`` and the figures measured there."""


@dataclass(frozen=True)
class Run:
    """All that shapes a training: equal runs give equal weights.

    Attributes:
        data: fingerprint of the training images.
        image_shape: (C, H, W).
        class_names: the classes the network learns; empty for none.
        initial_model: fingerprint of the weights that it starts from; None where it starts from nothing.
        initial_weights: these weights.
        continued_from: ``<run id>@<images seen>`` of a run with other parameters that this one goes on from; None
            where everything it did follows from its own.
        tracking_id: under which it is tracked: that of the run it went on from, if any.
    """

    model: ModelParameters
    diffusion: DiffusionParameters
    augmentation: AugmentationParameters
    optimizer: OptimizerParameters
    training: TrainingParameters
    data: str
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
        """The run that these images and parameters make, from these weights or from nothing.

        Raises:
            UserError: for an initial model that is another network than this run trains.
        """
        weights = None if initial_model is None else initial_model.network.state_dict()
        run = cls(
            model=model,
            diffusion=diffusion,
            augmentation=images.parameters,
            optimizer=optimizer,
            training=training,
            data=images.store.made_by.fingerprint,
            image_shape=images.store.image_shape,
            class_names=images.store.class_names if model.class_conditional else (),
            initial_model=None if weights is None else weights_fingerprint(weights),
            initial_weights=weights,
        )
        if initial_model is not None:
            _check_same_network(initial_model, run)
        return run

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> Self:
        """The run of the node ``train_model`` with these inputs, by their names in the catalog."""
        model, diffusion, optimizer, training = (
            inputs[f"params:{name}"] for name in ("model", "diffusion", "optimizer", "training")
        )
        images, initial_model = inputs["augmented_images"], inputs.get("initial_model")
        return cls.of(images, model, diffusion, optimizer, training, initial_model)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter that shapes the result, by group, as plain data."""
        groups = ("model", "diffusion", "augmentation", "optimizer", "training")
        return {name: getattr(self, name).fingerprint_fields() for name in groups}

    @property
    def run_id(self) -> str:
        """A name that equal runs share."""
        return made_by(self).fingerprint

    @property
    def num_steps(self) -> int:
        """Steps in all: the last batch is a whole one."""
        return -(-self.training.num_images // self.training.batch_size)

    @property
    def num_images(self) -> int:
        """Images seen after the last step."""
        return self.num_steps * self.training.batch_size


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands, as tensors and plain data.

    Attributes:
        run_id: of the run.
        parameters: that shaped it.
        data: fingerprint of its training images.
        images_seen: so far; which batch comes next, its noise and the learning rate follow from it.
        network, average, optimizer, scaler: state dicts.
        history: rows so far.
        meter: sums since the last row.
        image_shape, class_names: of the images.
        num_images: when it is finished.
        best_validation_loss: of the checkpoints so far, this one included.
        initial_model: fingerprint of the weights that it started from, or None.
        continued_from, tracking_id: as of :class:`Run`.
    """

    run_id: str
    parameters: dict[str, Any]
    data: str
    images_seen: int
    num_images: int
    network: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    history: list[Row]
    meter: Row
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    best_validation_loss: float = math.inf
    initial_model: str | None = None
    continued_from: str | None = None
    tracking_id: str | None = None

    @property
    def finished(self) -> bool:
        """Whether all images were seen."""
        return self.images_seen >= self.num_images


def made_by(run: Run | Checkpoint) -> Provenance:
    """What makes the model of a run."""
    began = {"initial_model": run.initial_model, "continued_from": run.continued_from}
    return Provenance(
        run.parameters, {"training_images": run.data} | {name: what for name, what in began.items() if what is not None}
    )


def network_differences(one: Run | Checkpoint | TrainedModel, other: Run | Checkpoint | TrainedModel) -> list[str]:
    """How their networks differ, one readable line a value; not in dropout, and not in what classes are called."""
    first, second = (
        {
            "model": {name: value for name, value in _model(each).items() if name not in NOT_OF_THE_NETWORK},
            "image shape": each.image_shape,
            "classes": len(each.class_names),
        }
        for each in (one, other)
    )
    return differences(first, second)


def _model(each: Run | Checkpoint | TrainedModel) -> dict[str, Any]:
    parameters = each.made_by.parameters if isinstance(each, TrainedModel) else each.parameters
    model: dict[str, Any] = parameters["model"]
    return model


def _check_same_network(initial: TrainedModel, run: Run) -> None:
    """The weights must be of the network that is trained."""
    if changes := network_differences(run, initial):
        raise UserError(
            f"training.initial_model is not the network that these parameters and images make: {'; '.join(changes)} "
            "there. Take over its model parameters (lists go into conf/local/parameters.yml), images of its shape, and "
            "model.class_conditional=false for a model without classes; or start from another model."
        )
