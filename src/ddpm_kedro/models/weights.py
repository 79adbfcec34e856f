"""Weights as tensors by name: write, name and check them."""

import errno
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ddpm_kedro.errors import UserError

SHOWN = 3  # names of tensors in an error


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: if the file cannot be written, in place of safetensors' own error.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return a short name for weights: equal names and values have equal fingerprints."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def check_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check that weights have the names and shapes of ``expected`` and are finite.

    Raises:
        UserError: for weights that are missing, not of this network, of another shape, or not finite.
    """
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
        problems = "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in wrong.items() if names)
        raise UserError(f"the weights do not fit the configuration: tensors {problems}")
    if infinite := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise UserError(f"weights are not finite: {_first(infinite)}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
