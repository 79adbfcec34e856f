"""Tensors by name, for looking into what went wrong."""

from safetensors.torch import load_file, save
from torch import Tensor

from ddpm_kedro.datasets.atomic import atomic_write
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
        with atomic_write(self._filepath) as file:
            file.write(save({name: tensor.contiguous() for name, tensor in data.items()}))
