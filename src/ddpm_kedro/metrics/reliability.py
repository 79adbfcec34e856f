"""How far the features can be trusted: what the feature extractor recognises in holdout images, beside chance."""

from dataclasses import dataclass

from ddpm_kedro.metrics.scores import LEAST

ERRORS = 2  # standard errors around chance that count as chance


@dataclass(frozen=True)
class Reliability:
    """What a feature extractor recognises in holdout images.

    Attributes:
        measure: "accuracy" of the classes, or "retrieval": the share of images for which, among views of 100 images,
            another view of the same image has the most similar features (cosine similarity).
        value: the share, in [0, 1].
        chance: the share without knowledge: of the most frequent class, or one image.
        n: number of holdout images.
    """

    measure: str
    value: float
    chance: float
    n: int

    @property
    def is_known(self) -> bool:
        """Return whether there are enough holdout images."""
        return self.n >= LEAST

    @property
    def is_chance(self) -> bool:
        """Return whether the value is within two standard errors of chance, or below."""
        error = (self.chance * (1 - self.chance) / self.n) ** 0.5
        return self.is_known and self.value <= self.chance + ERRORS * error

    @property
    def is_weak(self) -> bool:
        """Return whether the value is less than halfway between chance and 1: more is overlooked than recognised."""
        return self.is_known and self.value < (1 + self.chance) / 2
