"""The plan of the kit: its parts in order, their time limits, and the limit of the whole.

This module imports only the standard library: it runs before the kit's packages are on the path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

START = 15.0
"""Seconds for the start: finding packages, unpacking wheels, asking for the device."""
WHOLE = 550.0
"""Seconds from start to summary. Two full runs do not fit into a quarter of an hour, but a rerun of one part does."""
PATIENCE = 6.0
"""Factor of all limits in a tiny run, which measures nothing and may share a slow machine."""


@dataclass(frozen=True)
class Part:
    """One part of the kit: a process of its own.

    Attributes:
        name: of its module in ``benchmarks.gpu.parts``.
        title: of its section in the summary.
        limit: seconds after which the process is killed; what it has measured by then is kept.
        timed: whether it measures times, so that nothing else may run beside it.
        images: whether it needs the image pack.
    """

    name: str
    title: str
    limit: float
    timed: bool = True
    images: bool = False


PARTS = (
    Part("machine", "The machine and its ceilings", 25),
    Part("step", "A step of training", 60),
    Part("profile", "Where the time of a step goes", 45),
    Part("peers", "A step of the peers", 50),
    Part("tests", "The tests that depend on the device", 60, timed=False),
    Part("distributed", "One process under torchrun, stopped and resumed", 35, timed=False),
    Part("sampling", "Sampling", 40),
    Part("evaluation", "Evaluation", 20),
    Part("training", "A training run and its samples", 140, images=True),
    Part("compiled", "Compiled steps", 60),
)
"""The most important parts come first. ``compiled`` comes last: its compilation is prepared in the background of the
parts that are not timed, and it may use the time that the other parts have left."""


def chosen(names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts with these names in the order of the plan; all parts if no name is given.

    Raises:
        ValueError: if a name is unknown.
    """
    known = [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown parts: {', '.join(unknown)}; the parts are {', '.join(known)}")
    return tuple(part for part in PARTS if not names or part.name in names)
