"""What a training run is: its parameters, its name, and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.parameters import (
    AugmentationParameters,
    DiffusionParameters,
    ModelParameters,
    OptimizerParameters,
    TrainingParameters,
)
from ddpm_kedro.provenance import Provenance

Row = dict[str, float]
"""One row of the history: ``images_seen`` and the figures measured there."""


@dataclass(frozen=True)
class Run:
    """All that shapes a training: equal runs give equal weights.

    Attributes:
        data: fingerprint of the training images.
        image_shape: (C, H, W).
        class_names: the classes the network learns; empty for none.
    """

    model: ModelParameters
    diffusion: DiffusionParameters
    augmentation: AugmentationParameters
    optimizer: OptimizerParameters
    training: TrainingParameters
    data: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        images: AugmentedImages,
        model: ModelParameters,
        diffusion: DiffusionParameters,
        optimizer: OptimizerParameters,
        training: TrainingParameters,
    ) -> Self:
        """The run that these images and parameters make."""
        return cls(
            model=model,
            diffusion=diffusion,
            augmentation=images.parameters,
            optimizer=optimizer,
            training=training,
            data=images.store.made_by.fingerprint,
            image_shape=images.store.image_shape,
            class_names=images.store.class_names if model.class_conditional else (),
        )

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> Self:
        """The run of the node ``train_model`` with these inputs, by their names in the catalog."""
        groups = (inputs[f"params:{name}"] for name in ("model", "diffusion", "optimizer", "training"))
        return cls.of(inputs["augmented_images"], *groups)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter that shapes the result, by group, as plain data."""
        groups = ("model", "diffusion", "augmentation", "optimizer", "training")
        return {name: getattr(self, name).shaping() for name in groups}

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
        image_shape, class_names: of the images.
        num_images: when it is finished.
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
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether all images were seen."""
        return self.images_seen >= self.num_images


def made_by(run: Run | Checkpoint) -> Provenance:
    """What makes the model of a run."""
    return Provenance(run.parameters, {"training_images": run.data})
