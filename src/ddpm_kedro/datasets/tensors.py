"""Tensors by name, for looking into what went wrong."""

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_kedro.atomic import replaced
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.reading import reading


class TensorsDataset(LocalDataset[dict[str, Tensor], dict[str, Tensor]]):
    """A safetensors file."""

    def load(self) -> dict[str, Tensor]:
        """On the CPU."""
        with reading(self._filepath, "It is not needed for anything: remove it."):
            return load_file(self._filepath)

    def save(self, data: dict[str, Tensor]) -> None:
        """Replace the file."""
        with replaced(self._filepath) as new:
            write_tensors(data, new)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: where it cannot be written; the library itself raises an error of its own.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error
