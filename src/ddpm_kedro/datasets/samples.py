"""Drawn images on disk, in the layout that OpenAI's evaluator reads."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.parameters import UserError


class SamplesDataset(LocalDataset["Samples", "Samples"]):
    """An ``.npz`` with ``arr_0`` (N, H, W, C) uint8 and, for a model with classes, ``arr_1`` (N,) int64."""

    def load(self) -> "Samples":
        """Images, labels and class names."""
        if not self._exists():
            raise UserError(f"No samples in {self._filepath}; run `kedro run --pipelines sampling` first.")
        with np.load(self._filepath) as arrays:
            return Samples(arrays["arr_0"], arrays.get("arr_1"), tuple(arrays.get("class_names", ())))

    def save(self, data: "Samples") -> None:
        """Write uncompressed: samples hardly compress."""
        arrays: dict[str, NDArray[Any]] = {"arr_0": data.images}
        if data.labels is not None:
            arrays |= {"arr_1": data.labels, "class_names": np.array(data.class_names)}
        with atomic_write(self._filepath) as file:
            np.savez(file, allow_pickle=False, **arrays)


class Samples(NamedTuple):
    """Drawn images.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N,) int64, the classes asked for, or None.
        class_names: one name a class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
