"""A trained model: the network, and all that is needed to use it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ddpm_kedro.models.unet import UNet
from ddpm_kedro.parameters import DiffusionParameters, ModelParameters
from ddpm_kedro.provenance import Provenance


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode with the configuration that rebuilds it.

    Attributes:
        network: with the averaged (EMA) weights.
        made_by: every parameter that shaped the training, and its images.
        image_shape: (C, H, W).
        class_names: one name a class the network knows; empty for a model without classes.
        images_seen: in training.
        imported: from elsewhere: it is what it is, whatever the parameters of now.
    """

    network: UNet
    made_by: Provenance
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    images_seen: int
    imported: bool = False

    @property
    def run_id(self) -> str:
        """Of the training run."""
        return self.made_by.fingerprint

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
            KeyError, pydantic.ValidationError, RuntimeError: where configuration or weights do not fit.
        """
        parameters = ModelParameters.model_validate(config["parameters"]["model"])
        network = UNet(parameters, config["image_shape"][0], len(config["class_names"]))
        network.load_state_dict(weights)
        return cls(
            network=network.eval(),
            made_by=Provenance(config["parameters"], config["inputs"]),
            image_shape=tuple(config["image_shape"]),
            class_names=tuple(config["class_names"]),
            images_seen=config["images_seen"],
            imported=config.get("imported", False),
        )


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """A short name for tensors: equal names and values, equal name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
