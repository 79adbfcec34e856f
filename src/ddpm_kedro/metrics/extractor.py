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
from ddpm_kedro.images.store import Images, ImageSubset
from ddpm_kedro.metrics.backbone import Backbone
from ddpm_kedro.metrics.classifier import LEAST_CLASSES, Classifier
from ddpm_kedro.metrics.fitting import batch_size_for
from ddpm_kedro.metrics.simclr import SimCLR
from ddpm_kedro.provenance import Provenance

BATCH, BATCH_INCEPTION = 250, 50
NO_EXTRACTOR = "none"
LENGTH = "fit_images"
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
        name: name of the extractor: classifier, simclr, inception, or none (for images that allow no other).
        network: network with images (N, C, H, W) in [-1, 1] → features (N, D), logits or projections (N, K).
        image_shape: (C, H, W) of the images.
        class_names: names of the classes of the logits; empty except for a classifier.
        made_by: images and parameters that the extractor was fitted with.
    """

    name: str
    network: nn.Module
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    made_by: Provenance

    @torch.no_grad()
    def __call__(
        self, images: Images | ImageSubset, change: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return features and logits of images (N, H, W, C) uint8, as float32 on the CPU.

        They are computed on the network's device, in batches, whose memory does not depend on N.

        Args:
            change: function that changes images (n, C, H, W) in [-1, 1] before the network gets them.
        """
        device = next(self.network.parameters()).device
        batch = BATCH_INCEPTION if self.name == "inception" else min(BATCH, batch_size_for(self.image_shape))
        parts = []
        for first in range(0, len(images), batch):
            pixels = to_float(torch.from_numpy(np.array(images[first : first + batch])), device)  # a writable copy
            parts.append([part.cpu() for part in self.network(pixels if change is None else change(pixels))])
        features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
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
                network = build_extractor_network(shape, len(names))
            network.load_state_dict(state, assign=True)
        return cls(config["name"], network.eval(), shape, names, Provenance(**config["made_by"]))

    def state(self) -> dict[str, Tensor]:
        """Return the weights."""
        network = self.network.network if isinstance(self.network, Inception) else self.network
        state: dict[str, Tensor] = network.state_dict()
        return state


@dataclass(frozen=True)
class LazyFeatureExtractor:
    """A feature extractor that is fitted when it is saved, unless one for the same images is kept.

    Attributes:
        made_by: images and parameters of the extractor.
        read: function that fits it; it takes a :class:`~ddpm_kedro.metrics.fitting.SavedState`, from which it resumes.
        exact: whether a kept extractor whose fit had another length does not count.
    """

    made_by: Provenance
    read: Callable[..., FeatureExtractor]
    exact: bool = False

    def accepts(self, made_by: Provenance) -> bool:
        """Return whether a kept extractor can be used in place of this one."""
        return made_by == self.made_by or (not self.exact and _without_length(made_by) == _without_length(self.made_by))


def _without_length(made_by: Provenance) -> Provenance:
    fitting = made_by.parameters.get("evaluation", {})
    others = {name: value for name, value in fitting.items() if name != LENGTH}
    return Provenance(made_by.parameters | {"evaluation": others}, made_by.inputs)


def build_extractor_network(image_shape: tuple[int, int, int], num_classes: int) -> Backbone:
    """Build the untrained network of the evaluation's own extractor, on torch's current device.

    A fit costs forward and backward passes of this network for ``evaluation.fit_images`` images, with classes or not.

    Args:
        image_shape: (C, H, W).
        num_classes: number of classes; with fewer than two, the network is fitted without labels.
    """
    return Classifier(image_shape[0], num_classes) if num_classes >= LEAST_CLASSES else SimCLR(image_shape[0])


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
