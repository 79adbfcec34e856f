"""Feature extractors: networks whose features images are compared by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_kedro.diffusion import seed_global_state
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import file_checksum
from ddpm_kedro.images.pixels import to_float
from ddpm_kedro.images.store import Images
from ddpm_kedro.metrics.classifier import Classifier
from ddpm_kedro.provenance import Provenance

BATCH = 250
NO_EXTRACTOR = "none"
INCEPTION_SHA256 = "6726825d"  # its first digits, which the name of torch-fidelity's file has too
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class Inception(nn.Module):
    """torch-fidelity's Inception-v3, the network of FID, KID and IS as published."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: PLC0415

        torch.load(weights, weights_only=True)  # torch-fidelity would execute code in the file
        with seed_global_state(0):  # it initialises its weights before it loads them
            self.network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(weights))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (N, 2048) and logits (N, 1008) of images (N, C, H, W) in [-1, 1]; C may be 1, 3 or 4."""
        pixels = ((images + 1) * 127.5).round().to(torch.uint8)
        features, logits = self.network(pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels[:, :3])
        return features, logits


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that gives features and logits.

    Attributes:
        name: name of the extractor: classifier, inception, or none (for images without classes).
        network: network with images (N, C, H, W) in [-1, 1] → features (N, D), logits (N, K).
        image_shape: (C, H, W) of the images.
        class_names: names of the classes of the logits; empty for Inception.
        made_by: images and parameters that the extractor was fitted with.
    """

    name: str
    network: nn.Module
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    made_by: Provenance

    @torch.no_grad()
    def __call__(self, images: Images) -> tuple[Tensor, Tensor]:
        """Return features and logits of images (N, H, W, C) uint8, as float32 on the CPU.

        They are computed on the network's device.
        """
        device = next(self.network.parameters()).device
        parts = [
            self.network(to_float(torch.from_numpy(np.array(images[first : first + BATCH])), device))  # a writable copy
            for first in range(0, len(images), BATCH)
        ]
        features, logits = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return features, logits

    def config(self) -> dict[str, Any]:
        """Return everything except the weights, as plain data."""
        return {
            "name": self.name,
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "made_by": self.made_by.as_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], weights: Path) -> Self:
        """Rebuild an extractor from its :meth:`config` and a file with its :meth:`state`."""
        shape, names = tuple(config["image_shape"]), tuple(config["class_names"])
        if config["name"] == "inception":
            network: nn.Module = Inception(weights)
        elif config["name"] == NO_EXTRACTOR:
            network = nn.Identity()
        else:
            state = torch.load(weights, weights_only=True)
            with torch.device("meta"):  # no random numbers for weights that are replaced
                network = Classifier(shape[0], len(names))
            network.load_state_dict(state, assign=True)
        return cls(config["name"], network.eval(), shape, names, Provenance(**config["made_by"]))

    def state(self) -> dict[str, Tensor]:
        """Return the weights."""
        network = self.network.network if isinstance(self.network, Inception) else self.network
        state: dict[str, Tensor] = network.state_dict()
        return state


@dataclass(frozen=True)
class LazyFeatureExtractor:
    """A feature extractor that is fitted when it is saved, unless the saved one was made by the same."""

    made_by: Provenance
    read: Callable[[], FeatureExtractor]


def inception_weights(path: str | None) -> Path:
    """Return the file of Inception's weights after checking it; download it if the path is None.

    Raises:
        UserError: if the file is missing, has another checksum or cannot be downloaded.
    """
    if path is not None:
        return _checked(Path(path))
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # noqa: PLC0415

    try:
        torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Inception's weights could not be downloaded ({error}). Copy {INCEPTION_FILE} of "
            "torch-fidelity's releases to this machine and set evaluation.inception_weights to its path."
        ) from error
    return Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE)


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise UserError(
            f"There are no Inception weights at {path}. Put torch-fidelity's {INCEPTION_FILE} there, or set "
            "evaluation.inception_weights to its path, or to null to download it."
        )
    found = file_checksum(path)
    if not found.startswith(INCEPTION_SHA256):
        raise UserError(
            f"{path} is not {INCEPTION_FILE}: its SHA-256 begins with {found[:8]}, not {INCEPTION_SHA256}. "
            "Download it again."
        )
    return path
