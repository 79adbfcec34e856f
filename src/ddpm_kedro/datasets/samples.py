"""Drawn images on disk, in the layout that OpenAI's evaluator reads."""

import json
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


class SamplesDataset(FileDataset["Samples", "Samples"]):
    """An ``.npz`` with ``arr_0`` (N, H, W, C) uint8 and, for a model with classes, ``arr_1`` (N,) int64."""

    def load(self) -> "Samples":
        """Images, labels, class names and what made them."""
        if not self._exists():
            raise UserError(f"No samples in {self._filepath}; run `kedro run --pipelines sampling` first.")
        try:
            with np.load(self._filepath) as arrays:
                made_by = Provenance(**json.loads(str(arrays["made_by"])))
                return Samples(arrays["arr_0"], arrays.get("arr_1"), tuple(arrays.get("class_names", ())), made_by)
        except (KeyError, TypeError, ValueError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{self._filepath} is damaged or holds no samples of this version ({type(error).__name__}). "
                "`kedro run --pipelines sampling` draws them again."
            ) from error

    def fingerprint(self) -> str:
        """That of what made the saved samples."""
        with np.load(self._filepath) as arrays:
            return Provenance(**json.loads(str(arrays["made_by"]))).fingerprint

    def save(self, data: "Samples") -> None:
        """Write uncompressed: samples hardly compress."""
        arrays: dict[str, NDArray[Any]] = {
            "arr_0": data.images,
            "made_by": np.array(json.dumps(data.made_by.as_dict())),
        }
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
        made_by: the model and the parameters of sampling.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    made_by: Provenance
