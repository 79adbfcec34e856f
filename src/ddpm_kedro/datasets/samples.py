"""Samples on disk, in the layout that OpenAI's evaluator reads."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import check_zip, provenance_of, reading
from ddpm_kedro.sampling.samples import Samples

REMEDY = "`kedro run --pipelines sampling` samples them again."


class SamplesDataset(FileDataset[Samples, Samples]):
    """An ``.npz`` with ``arr_0`` (N, H, W, C) uint8 and, for a model with classes, ``arr_1`` (N,) int64."""

    def load(self) -> Samples:
        """Load the samples; raise UserError if there are none, the file is damaged, or a shape or type is wrong."""
        if not self._exists():
            raise UserError(f"No samples in {self._filepath}; run `kedro run --pipelines sampling` first.")
        with reading(self._filepath, REMEDY):
            check_zip(self._filepath)
            with np.load(self._filepath) as arrays:
                names = tuple(str(name) for name in arrays.get("class_names", ()))
                made_by = provenance_of(json.loads(str(arrays["made_by"])))
                return _checked(Samples(arrays["arr_0"], arrays.get("arr_1"), names, made_by))

    def fingerprint(self) -> str:
        """Return the fingerprint of the model and parameters that made the saved samples."""
        with reading(self._filepath, REMEDY), np.load(self._filepath) as arrays:
            return provenance_of(json.loads(str(arrays["made_by"]))).fingerprint

    def save(self, data: Samples) -> None:
        """Write the samples, uncompressed: they hardly compress."""
        arrays: dict[str, NDArray[Any]] = {
            "arr_0": data.images,
            "made_by": np.array(json.dumps(data.made_by.as_dict())),
        }
        if data.labels is not None:
            arrays |= {"arr_1": data.labels, "class_names": np.array(data.class_names)}
        with atomic_write(self._filepath) as file:
            np.savez(file, allow_pickle=False, **arrays)


def _checked(samples: Samples) -> Samples:
    """Check shapes and types: see :class:`Samples`."""
    images, labels, names = samples.images, samples.labels, samples.class_names
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UserError(f"arr_0 is {images.dtype} {images.shape}, not uint8 (N, H, W, C)")
    if labels is None:
        return samples
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(f"arr_1 is {labels.dtype} {labels.shape}, not int64 ({len(images)},)")
    if not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(f"arr_1 has labels beyond the {len(names)} class_names")
    return samples
