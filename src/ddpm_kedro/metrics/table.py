"""The metrics of samples and what belongs to them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from ddpm_kedro.metrics.reliability import Reliability
from ddpm_kedro.metrics.scores import Score
from ddpm_kedro.provenance import Provenance

EXPLANATIONS = {
    "KID": "Kernel distance between the features of samples and of training images: 0 is best, and the number of "
    "samples does not shift it.",
    "FD": "Fréchet distance between two normal distributions, fitted to the features of samples and of training "
    "images: 0 is best, and it falls with the number of samples, so compare equal numbers only.",
    "FID": "Fréchet distance between two normal distributions, fitted to the Inception features of samples and of "
    "training images: 0 is best, and it falls with the number of samples, so compare equal numbers only.",
    "precision": "Share of samples that look like some training image: low if samples are blurred or broken.",
    "recall": "Share of training images that some sample looks like: low if the samples lack variety.",
    "IS": "How clearly each sample belongs to one class, and how varied the classes of all samples are: 1 is worst.",
    "accuracy of classes": "Share of samples that the classifier recognises as the class they were sampled for.",
}
"""One sentence per metric; its name may be followed by the extractor's, as in ``KID(classifier)``."""
COLUMNS = ("metric", "samples", "samples at the holdout's n", "holdout", "n", "")


@dataclass(frozen=True)
class Metrics:
    """The scores of samples, with everything that must be equal before two scores are compared.

    Attributes:
        scores: one per metric; empty without a feature extractor.
        copying: see :func:`ddpm_kedro.metrics.neighbours.copying`.
        samples: description of how the samples were generated: run, weights, sampler, evaluations, seconds.
        extractor: name of the feature extractor.
        reference_images: number of training images in the comparison.
        made_by: parameters and inputs of the evaluation.
        reliability: what the feature extractor recognises in holdout images; None if unknown.
        verdict: one sentence that says how close the samples are to real images.
        warnings: reasons to doubt the scores, one sentence each.
    """

    scores: list[Score]
    copying: dict[str, Any]
    samples: dict[str, Any]
    extractor: str
    reference_images: int
    made_by: Provenance
    reliability: Reliability | None = None
    verdict: str = ""
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        figures = [score.as_dict() for score in self.scores]
        return {"figures": figures} | {name: value for name, value in asdict(self).items() if name != "scores"}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], made_by: Provenance) -> Self:
        """Rebuild what :meth:`as_dict` returned."""
        fields = {name: value for name, value in content.items() if name != "figures"}
        scores = [Score.from_dict(score) for score in content["figures"]]
        found = content.get("reliability")
        fields |= {"made_by": made_by, "reliability": Reliability(**found) if found else None}
        return cls(scores, **fields | {"warnings": tuple(content.get("warnings", ()))})

    def rows(self) -> list[list[str]]:
        """Return the table that people read, with the columns ``COLUMNS``; the extractor's reliability comes last."""
        return [
            [
                score.name,
                _rounded(score.value, score.spread),
                _rounded(score.value_at_holdout_n),
                _rounded(score.holdout_value),
                f"{score.n:,} / {score.holdout_n:,}" if score.holdout_n else f"{score.n:,}",
                score.note or f"{score.better} is better",
            ]
            for score in self.scores
        ] + ([] if self.reliability is None else [_reliability_row(self.reliability)])


def _reliability_row(found: Reliability) -> list[str]:
    name = {"accuracy": "accuracy of the extractor", "retrieval": "retrieval by the extractor"}[found.measure]
    return [name, "", "", _rounded(found.value), f"{found.n:,}", f"by chance: {_rounded(found.chance)}"]


def _rounded(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if spread is None else f"{value:.4g} ± {spread:.2g}"
