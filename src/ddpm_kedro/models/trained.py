"""A trained model: the network, and all that is needed to use it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.models.record import RunRecord
from ddpm_kedro.models.unet import UNet
from ddpm_kedro.parameters import DiffusionParameters, ModelParameters
from ddpm_kedro.provenance import Provenance

SHOWN = 3  # names of tensors in an error
Size = Annotated[int, Field(ge=1, le=16_384)]
"""Of an image, in pixels: nothing else in a file would say that it is far too large."""


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode with the configuration that rebuilds it.

    Attributes:
        network: with the averaged (EMA) weights.
        record: what made the model, and the images that it generates.
        images_seen: in training.
        imported: from elsewhere: it is what it is, whatever the parameters of now.
    """

    network: UNet
    record: RunRecord
    images_seen: int
    imported: bool = False

    @property
    def run_id(self) -> str:
        """Return the name of the training run."""
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
        """Those of the network."""
        return ModelParameters.model_validate(self.made_by.parameters["model"])

    @property
    def diffusion(self) -> DiffusionParameters:
        """Schedule and target the network was trained with."""
        return DiffusionParameters.model_validate(self.made_by.parameters["diffusion"])

    @property
    def knows_empty_label(self) -> bool:
        """Whether the network was trained with the empty label, which classifier-free guidance needs.

        An imported model says nothing of its training: where it had no embedding of the empty label,
        :func:`~ddpm_kedro.models.from_diffusers` gave it the mean of all classes.
        """
        if self.network.class_embedding is None:
            return False
        if training := self.made_by.parameters.get("training"):
            return bool(training.get("label_dropout", 0) > 0)
        *classes, empty = self.network.class_embedding.weight
        return not torch.allclose(torch.stack(classes).mean(dim=0), empty)

    def config(self) -> dict[str, Any]:
        """All but the weights, as plain data."""
        return {
            "run_id": self.run_id,
            "images_seen": self.images_seen,
            "weights": "ema",
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            **({"imported": True} if self.imported else {}),
            **self.made_by.as_dict(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        """Rebuild what :meth:`config` described.

        Raises:
            UserError: for a configuration that describes no model, and weights that do not fit it or are not finite.
        """
        try:
            checked = _Config.model_validate(config)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise UserError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        made_by = Provenance(dict(config["parameters"]), dict(checked.inputs))
        record = RunRecord(made_by, checked.image_shape, checked.class_names)
        if checked.run_id not in {None, record.run_id}:
            raise UserError(f"its parameters are not those of run {checked.run_id}, which it names")
        network = empty_network(checked.parameters.model, checked.image_shape[0], len(checked.class_names), weights)
        network.load_state_dict({name: tensor.float().contiguous() for name, tensor in weights.items()}, assign=True)
        return cls(network=network.eval(), record=record, images_seen=checked.images_seen, imported=checked.imported)


class _Parameters(BaseModel):
    """The groups that every model has; others may stand beside them."""

    model: ModelParameters
    diffusion: DiffusionParameters


class _Config(BaseModel):
    """What :meth:`TrainedModel.config` gives, with anything else beside it."""

    model_config = ConfigDict(strict=True)

    run_id: str | None = None
    images_seen: NonNegativeInt
    image_shape: tuple[Size, Size, Size] = Field(strict=False)
    class_names: tuple[str, ...] = Field(strict=False)
    parameters: _Parameters = Field(strict=False)
    inputs: dict[str, str]
    imported: bool = False


def empty_network(p: ModelParameters, channels: int, num_classes: int, weights: Mapping[str, Tensor]) -> UNet:
    """Build the network that these weights are for; it takes no memory before it is given them, and no random numbers.

    Raises:
        UserError: for weights that are missing, not of this network, of another shape, or not finite.
    """
    if p.blocks_per_level * len(p.channel_multipliers) > len(weights):  # it would take long to build
        raise UserError(f"{len(weights)} tensors are too few for {p.blocks_per_level} blocks_per_level")
    try:
        with torch.device("meta"):
            network = UNet(p, channels, num_classes)
    except (RuntimeError, OverflowError, TypeError) as error:  # numbers of elements that no integer of torch holds
        raise UserError(f"the network is too large: width {p.width}, {channels} channels") from error
    expected = network.state_dict()
    wrong = {
        "missing": [name for name in expected if name not in weights],
        "not of this network": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name}: {list(weights[name].shape)}, not {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in weights and weights[name].shape != tensor.shape
        ],
    }
    if any(wrong.values()):
        told = "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in wrong.items() if names)
        raise UserError(f"the weights do not fit the configuration: tensors {told}")
    if infinite := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise UserError(f"weights are not finite: {_some(infinite)}")
    return network


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """A short name for tensors: equal names and values, equal name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
