"""What a device can do: its memory, and its speed as a function of a network's cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from ddpm_kedro.planning.cost import Cost

EXTRACTOR = "extractor"


@dataclass(frozen=True)
class Timing:
    """A timed step of training: the cost of a network per image, the batch, and the seconds that the step took."""

    name: str
    flops: float
    elements: float
    operations: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class DeviceProfile:
    """What a device can do; stored as JSON.

    Attributes:
        kind: name of the device, threads, precision and version of torch: profiles of one kind are exchangeable.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        memory: bytes that training may use.
        timings: timed steps of reference networks.
    """

    kind: str
    device: str
    precision: str
    memory: int
    timings: tuple[Timing, ...]

    def seconds_per_step(self, cost: "Cost", batch: int) -> float:
        """Predict the seconds of a step: time per operation, per value that is written, and per FLOP."""
        return float(_terms(cost, batch) @ self.coefficients)

    def images_per_second(self, cost: "Cost", batch: int) -> float:
        """Predict the speed of training."""
        return batch / self.seconds_per_step(cost, batch)

    def extractor_images_per_second(self, cost: "Cost") -> float:
        """Predict the speed of fitting the evaluation's extractor, by the values that it writes."""
        found = [timing for timing in self.timings if timing.name == EXTRACTOR]
        if not found:
            return self.images_per_second(cost, 64)
        return found[0].batch * found[0].elements / found[0].seconds / cost.elements

    @cached_property
    def coefficients(self) -> np.ndarray[Any, Any]:
        """Fit seconds ≈ a · operations + batch · (b · elements + c · flops) to the timings, with a, b, c ≥ 0.

        Each timing counts by its relative error. One timing alone gives a rate of FLOPs.
        """
        from scipy.optimize import nnls  # noqa: PLC0415  takes half a second

        timings = [timing for timing in self.timings if timing.name != EXTRACTOR]
        terms = np.array([_terms(timing, timing.batch) / timing.seconds for timing in timings])
        if len(timings) == 1:
            terms[:, :2] = 0
        scale = np.maximum(terms.max(axis=0), 1e-300)
        solution, _ = nnls(terms / scale, np.ones(len(timings)))
        return np.where(terms.max(axis=0) > 0, solution / scale, 0.0)

    def with_memory(self, memory: int) -> Self:
        """Return the profile of a device with this memory."""
        return replace(self, memory=memory)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a profile from the result of :meth:`as_dict`."""
        return cls(**{**content, "timings": tuple(Timing(**timing) for timing in content["timings"])})

    @classmethod
    def of_rate(cls, kind: str, device: str, memory: int, flops_per_second: float) -> Self:
        """Return the profile of a device of which only the rate of a training is known."""
        return cls(kind, device, "bf16", memory, (Timing("given", flops_per_second, 0.0, 0, 1, 1.0),))


def _terms(cost: "Cost | Timing", batch: int) -> np.ndarray[Any, Any]:
    return np.array([cost.operations, batch * cost.elements, batch * cost.flops], dtype=float)
