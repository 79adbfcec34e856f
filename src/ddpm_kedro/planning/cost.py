"""The cost of a step of training, counted without computing it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ddpm_kedro.metrics.extractor import build_extractor_network
from ddpm_kedro.models import build_network
from ddpm_kedro.parameters import ModelParameters

META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """The cost of forward and backward pass of a network.

    Attributes:
        flops: operations of matrix products and convolutions per image, as torch's ``FlopCounterMode`` counts them.
        elements: values that all operations write per image, gradients of weights excluded: the traffic of elementwise
            operations and reductions.
        operations: number of operations, which does not depend on the batch.
        parameters: number of weights.
    """

    flops: float
    elements: float
    operations: int
    parameters: int


class _Written(TorchDispatchMode):
    """Count operations and the values that they write; views write nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements, self.operations = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            found = results if isinstance(results, tuple | list) else (results,)
            self.elements += sum(each.numel() for each in found if isinstance(each, Tensor))
        return results


@lru_cache(maxsize=256)
def unet_cost(parameters: ModelParameters, image_shape: tuple[int, int, int], num_classes: int) -> Cost:
    """Return the cost of the U-Net for images (C, H, W)."""
    with META:
        network = build_network(parameters, image_shape[0], num_classes if parameters.class_conditional else 0)
        return network_cost(network, torch.empty(1, *image_shape), torch.zeros(1))


@lru_cache(maxsize=256)
def extractor_cost(image_shape: tuple[int, int, int], num_classes: int) -> Cost:
    """Return the cost of fitting the evaluation's extractor to images (C, H, W); 0 classes: without labels."""
    with META:
        return network_cost(build_extractor_network(image_shape, num_classes), torch.empty(2, *image_shape))


def network_cost(network: nn.Module, *inputs: Tensor) -> Cost:
    """Return the cost of a network on the meta device, per image of its inputs."""
    written = _Written()
    with FlopCounterMode(display=False) as counter, written:
        results = network(*inputs)
        outputs = results if isinstance(results, tuple) else (results,)
        torch.stack([output.sum() for output in outputs]).sum().backward()
    weights = sum(parameter.numel() for parameter in network.parameters())
    images = len(inputs[0])
    return Cost(counter.get_total_flops() / images, (written.elements - weights) / images, written.operations, weights)
