"""The record that a training run, its checkpoints and its exported model share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ddpm_kedro.provenance import Provenance, differences

NOT_IN_THE_WEIGHTS = {"dropout", "class_conditional"}  # class_conditional shows in the number of classes


@dataclass(frozen=True)
class RunRecord:
    """The identity of a training run and of the network that it trains.

    Attributes:
        made_by: every parameter that affects the result, by group, and the fingerprint of each input:
            ``training_images``; ``initial_model``, the weights that the run starts from, if any; ``continued_from``,
            ``<run id>@<images seen>`` of a run with other parameters that it continues, if any.
        image_shape: (C, H, W) of the images.
        class_names: one name per class that the network knows; empty for a network without classes.
        tracking_id: id in W&B; a run that continues another keeps its id. None for a model.
    """

    made_by: Provenance
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    tracking_id: str | None = None

    @property
    def run_id(self) -> str:
        """Return the name that equal runs share."""
        return self.made_by.fingerprint

    def network_differences(self, other: "RunRecord") -> list[str]:
        """Return how the networks differ, one line per value; dropout and the names of classes may differ."""
        return differences(self._network(), other._network())

    def _network(self) -> dict[str, Any]:
        model = self.made_by.parameters["model"]
        return {
            "model": {name: value for name, value in model.items() if name not in NOT_IN_THE_WEIGHTS},
            "image shape": self.image_shape,
            "classes": len(self.class_names),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {
            **self.made_by.as_dict(),
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "tracking_id": self.tracking_id,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Rebuild the record from the result of :meth:`as_dict`."""
        channels, height, width = document["image_shape"]
        made_by = Provenance(document["parameters"], document["inputs"])
        return cls(made_by, (channels, height, width), tuple(document["class_names"]), document["tracking_id"])
