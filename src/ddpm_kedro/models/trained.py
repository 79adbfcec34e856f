"""A trained model: the network and everything needed to use it, in memory and in a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.files import file_checksum, read_document, reading, seal
from ddpm_kedro.models.networks import restore_network
from ddpm_kedro.models.record import RunRecord
from ddpm_kedro.models.unet import UNet
from ddpm_kedro.models.weights import write_tensors
from ddpm_kedro.parameters import DiffusionParameters, ModelParameters
from ddpm_kedro.provenance import Provenance

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WEIGHTS_CHECKSUM = "weights_sha256"
REMEDY = "`kedro run --pipelines model_training` exports it again from the checkpoint."
Size = Annotated[int, Field(ge=1, le=16_384)]
"""Pixels of an image's side. Without the limit, nothing would reveal an absurd size in a file."""


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode with the configuration that rebuilds it.

    Attributes:
        network: network with the EMA weights.
        record: identity of the training run and of the network.
        images_seen: number of images seen in training.
        imported: whether it was converted from another format; the parameters of its training are then unknown.
        trained_on: device and precision of its training; empty if unknown.
    """

    network: UNet
    record: RunRecord
    images_seen: int
    imported: bool = False
    trained_on: str = ""

    @classmethod
    def load(cls, folder: Path | str, remedy: str = REMEDY) -> Self:
        """Load a model that :meth:`save` or a run wrote, on the CPU. Kedro is not needed.

        ``folder`` is for example ``data/06_models/model``; ``remedy`` is the advice in an error about a damaged file.

        Raises:
            UserError: if there is no model, a file is damaged, or the files do not fit together.
        """
        folder = Path(folder)
        if not (folder / CONFIG).exists():
            raise UserError(f"No trained model in {folder}; run `kedro run` first, which trains and exports one.")
        with reading(folder, remedy):
            config = read_document(folder / CONFIG)
            if config.get(WEIGHTS_CHECKSUM) not in {None, file_checksum(folder / WEIGHTS)}:  # None: earlier versions
                raise UserError(f"the content of {WEIGHTS} does not match its checksum in {CONFIG}")
            return cls.from_config(config, load_file(folder / WEIGHTS))

    def save(self, folder: Path | str) -> None:
        """Write ``model.safetensors``, and the ``config.json`` that rebuilds the network."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.network.state_dict(), folder / WEIGHTS)
        config = self.config() | {WEIGHTS_CHECKSUM: file_checksum(folder / WEIGHTS)}
        (folder / CONFIG).write_text(json.dumps(seal(config), indent=2) + "\n")

    @property
    def run_id(self) -> str:
        """Return the id of the training run."""
        return self.record.run_id

    @property
    def made_by(self) -> Provenance:
        """Return the parameters and inputs of the training run."""
        return self.record.made_by

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.record.image_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return one name per class that the network knows; none for a model without classes."""
        return self.record.class_names

    @property
    def parameters(self) -> ModelParameters:
        """Return the parameters of the network."""
        return ModelParameters.model_validate(self.made_by.parameters["model"])

    @property
    def diffusion(self) -> DiffusionParameters:
        """Return the schedule and target that the network was trained with."""
        return DiffusionParameters.model_validate(self.made_by.parameters["diffusion"])

    @property
    def knows_empty_label(self) -> bool:
        """Return whether the network was trained with the empty label, which classifier-free guidance needs.

        An imported model has no parameters of its training. If it came without an embedding of the empty label,
        :func:`~ddpm_kedro.models.from_diffusers` added one: the mean of all classes.
        """
        if not self.class_names:
            return False
        if training := self.made_by.parameters.get("training"):
            return bool(training.get("label_dropout", 0) > 0)
        assert self.network.class_embedding is not None
        *classes, empty = self.network.class_embedding.weight
        return not torch.allclose(torch.stack(classes).mean(dim=0), empty)

    def config(self) -> dict[str, Any]:
        """Return everything but the weights, as plain data."""
        return {
            "run_id": self.run_id,
            "images_seen": self.images_seen,
            "weights": "ema",
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            **({"imported": True} if self.imported else {}),
            **({"trained_on": self.trained_on} if self.trained_on else {}),
            **self.made_by.as_dict(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        """Rebuild the model that :meth:`config` describes.

        Raises:
            UserError: if the configuration is invalid, or the weights do not fit it or are not finite.
        """
        try:
            checked = _Config.model_validate(config)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise UserError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        made_by = Provenance(dict(config["parameters"]), dict(checked.inputs))
        record = RunRecord(made_by, checked.image_shape, checked.class_names)
        if checked.run_id not in {None, record.run_id}:
            raise UserError(f"its parameters do not match its run id {checked.run_id}")
        network = restore_network(checked.parameters.model, checked.image_shape[0], len(checked.class_names), weights)
        return cls(network, record, checked.images_seen, checked.imported, checked.trained_on)


class _Parameters(BaseModel):
    """The groups that every model has; other groups are ignored."""

    model: ModelParameters
    diffusion: DiffusionParameters


class _Config(BaseModel):
    """The types of :meth:`TrainedModel.config`; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    run_id: str | None = None
    images_seen: NonNegativeInt
    image_shape: tuple[Size, Size, Size] = Field(strict=False)
    class_names: tuple[str, ...] = Field(strict=False)
    parameters: _Parameters = Field(strict=False)
    inputs: dict[str, str]
    imported: bool = False
    trained_on: str = ""
