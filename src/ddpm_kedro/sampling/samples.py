"""The samples of a model, in memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.provenance import Provenance


class Samples(NamedTuple):
    """Images that a model generated.

    Attributes:
        images: pixels (N, H, W, C) uint8.
        labels: requested classes, (N,) int64, or None.
        class_names: one name per class.
        made_by: the model and the parameters of sampling.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    made_by: Provenance
