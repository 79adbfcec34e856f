"""The networks by name, and the one place that builds them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm_kedro.errors import UserError
from ddpm_kedro.models.unet import UNet
from ddpm_kedro.models.weights import check_weights
from ddpm_kedro.parameters import ModelParameters

NETWORKS: dict[str, Callable[..., Any]] = {"unet": UNet}
"""By ``model.network``: modules with the constructor, ``forward``, ``num_classes`` and ``recompute_activations`` of
:class:`UNet`. ``augmentation_labels`` and ``augmentation`` are needed only for non-leaking augmentation."""


def build_network(
    parameters: ModelParameters, channels: int, num_classes: int = 0, augmentation_labels: int = 0
) -> UNet:
    """Build the network that ``parameters.network`` names, with new weights; see :class:`UNet`."""
    options = {"augmentation_labels": augmentation_labels} if augmentation_labels else {}
    network: UNet = NETWORKS[parameters.network](parameters, channels, num_classes, **options)
    return network


def restore_network(p: ModelParameters, channels: int, num_classes: int, weights: Mapping[str, Tensor]) -> UNet:
    """Build the network with these weights, in float32 and evaluation mode, without random numbers.

    Raises:
        UserError: for weights that do not belong to this network, or are not finite.
    """
    if p.blocks_per_level * len(p.channel_multipliers) > len(weights):  # it would take long to build
        raise UserError(f"{len(weights)} tensors are too few for {p.blocks_per_level} blocks_per_level")
    try:
        with torch.device("meta"):  # takes no memory before the weights are assigned
            network = build_network(p, channels, num_classes)
    except (RuntimeError, OverflowError, TypeError) as error:  # torch's integers cannot hold the number of elements
        raise UserError(f"the network is too large: width {p.width}, {channels} channels") from error
    check_weights(weights, network.state_dict())
    network.load_state_dict({name: tensor.float().contiguous() for name, tensor in weights.items()}, assign=True)
    return network.eval()
