"""A fake GPU: shapes and devices of all tensors are tracked, and nothing is computed."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ddpm_kedro.diffusion import generator_for
from ddpm_kedro.hardware import Hardware
from ddpm_kedro.training import randomness, trainer

GPU = Hardware(torch.device("cuda"), "bf16", "a fake one")


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Make all tensors of a block fakes. A tensor left on the CPU fails when it meets one on the GPU, as on a real GPU.

    Everything that needs the driver, above all random generators of a GPU, is put on the CPU.
    """
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # copied weights have no data
        patch.object(Tensor, "numpy", _any_indices),
        patch.object(FakeTensor, "tolist", lambda tensor: _any_indices(tensor).tolist()),
        patch.object(nn.Module, "_apply", _move),
        patch.object(trainer, "generator_for", lambda *counters, device="cpu": generator_for(*counters)),
        patch.object(randomness, "_epoch_order", randomness._epoch_order.__wrapped__),  # its cache would keep fakes
        patch.object(trainer, "seeded", lambda *_: nullcontext()),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def _move(module: nn.Module, move: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Move a module as ``Module.to`` does, with new parameters: torch cannot swap fakes in place."""
    for part in module.modules():
        moved: dict[str, Any] = {
            name: nn.Parameter(move(p.detach()), p.requires_grad) for name, p in part.named_parameters(recurse=False)
        }
        part._parameters.update(moved)
        part._buffers.update({name: move(buffer) for name, buffer in part.named_buffers(recurse=False)})
    return module


def _any_indices(tensor: Tensor) -> NDArray[np.int64]:
    """Return zeros, since fakes have no values: each batch is the first image, repeated."""
    assert tensor.device.type == "cpu", "numpy cannot read from a GPU"
    return np.zeros(tensor.shape, dtype=np.int64)
