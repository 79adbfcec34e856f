"""All that is known of samples."""

from dataclasses import dataclass
from typing import Any

from ddpm_kedro.provenance import Provenance


@dataclass(frozen=True)
class Metrics:
    """What is known of samples; every figure stands with all that must be equal before two are compared.

    Attributes:
        figures: each with value, n, floor and what stands in :class:`ddpm_kedro.metrics.scores.Figure`.
        copying: see :func:`ddpm_kedro.metrics.neighbours.copying`.
        samples: how they were drawn: run, weights, sampler, evaluations, seconds.
        extractor: whose features were compared.
        reference_images: training images compared with.
        made_by: parameters and inputs.
    """

    figures: list[dict[str, Any]]
    copying: dict[str, Any]
    samples: dict[str, Any]
    extractor: str
    reference_images: int
    made_by: Provenance

    def rows(self) -> list[list[str]]:
        """The table that people read: figure, value, floor, n, what is better."""
        return [
            [
                figure["name"],
                _rounded(figure["value"], figure["spread"]),
                _rounded(figure["at_floor_n"]),
                _rounded(figure["floor"]),
                f"{figure['n']:,} / {figure['floor_n']:,}" if figure["floor_n"] else f"{figure['n']:,}",
                figure["note"] or f"{figure['better']} is better",
            ]
            for figure in self.figures
        ]


WITHOUT_CLASSES = (
    "evaluation.extractor = classifier learns the classes of the images, and these have none: KID, FD, precision, "
    "recall and IS are left out. evaluation.extractor=inception needs no classes."
)
COLUMNS = ("figure", "samples", "samples at the hold-out's n", "hold-out", "n", "")


def _rounded(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if spread is None else f"{value:.4g} ± {spread:.2g}"
