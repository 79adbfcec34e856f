"""Tensors by name on disk, for debugging."""

from safetensors.torch import load_file
from torch import Tensor

from ddpm_kedro.atomic import replaced
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.files import reading
from ddpm_kedro.models.weights import write_tensors


class TensorsDataset(LocalDataset[dict[str, Tensor], dict[str, Tensor]]):
    """A safetensors file."""

    def load(self) -> dict[str, Tensor]:
        """Load the tensors, on the CPU."""
        with reading(self._filepath, "Nothing needs it: remove it."):
            return load_file(self._filepath)

    def save(self, data: dict[str, Tensor]) -> None:
        """Replace the file."""
        with replaced(self._filepath) as new:
            write_tensors(data, new)
