"""Find out which folders of a listing are splits and classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError

SPLITS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "holdout": "test",
}
"""Words for splits, in lower case."""
TRAINING, HOLDOUT, UNUSED = 0, 1, 2
Integers = NDArray[np.int64]
Level = tuple[Integers, Sequence[bytes]]
"""The folder of each file at one depth: indices (N,), -1 for none, and the names of the folders."""


@dataclass(frozen=True)
class Folders:
    """The class and the part of each file.

    Attributes:
        class_names: sorted names of the folders that are classes; empty if there are no classes.
        labels: indices into ``class_names``, (N,), -1 for files without a class.
        parts: part of each file, (N,): TRAINING, HOLDOUT or UNUSED; all TRAINING if the folders are no splits.
        splits: names of the folders of each part; empty if the folders are no splits.
    """

    class_names: tuple[bytes, ...]
    labels: Integers
    parts: Integers
    splits: tuple[tuple[str, ...], ...] = ()


def find_folders(levels: Sequence[Level], *, splits: bool) -> Folders:
    """Return splits and classes: the folders of the first level with several folders, from the top.

    With ``splits``, folders that are all named like splits are splits; the classes are then below.

    Raises:
        UserError: if there are splits, but none for training.
    """
    parts = np.zeros(len(levels[0][0]), dtype=np.int64)
    split_names: tuple[tuple[str, ...], ...] = ()
    depth = _first_with_several(levels)
    if splits and depth is not None and (words := _split_words(levels[depth])):
        numbers, names = levels[depth]
        order = _parts_of({*words.values()}, [names[number].decode() for number in words])
        for number, word in words.items():
            parts[numbers == number] = order[word]
        split_names = tuple(
            tuple(names[number].decode() for number, word in words.items() if order[word] == part)
            for part in (TRAINING, HOLDOUT, UNUSED)
        )
        levels = [_merged(level) for level in levels[depth + 1 :]]
        depth = _first_with_several(levels)
    if depth is None:
        return Folders((), np.full(len(parts), -1), parts, split_names)
    numbers, names = levels[depth]
    present = sorted(np.unique(numbers[numbers >= 0]).tolist(), key=names.__getitem__)
    ranks = np.full(len(names) + 1, -1, dtype=np.int64)
    ranks[present] = np.arange(len(present))
    return Folders(tuple(names[number] for number in present), ranks[numbers], parts, split_names)


def _split_words(level: Level) -> dict[int, str]:
    """Return the kind of split of each folder of a level; none unless all are named like splits."""
    numbers, names = level
    present = np.unique(numbers[numbers >= 0]).tolist()
    words = {number: SPLITS.get(names[number].decode("utf-8", "replace").casefold(), "") for number in present}
    return words if all(words.values()) else {}


def _parts_of(words: set[str], names: list[str]) -> dict[str, int]:
    """Return the part of each split: validation is the holdout if there is one, else test."""
    if "training" not in words:
        raise UserError(
            f"The folders {', '.join(names)} of dataset.path are splits, but none of them is for training: rename "
            "one of them to train, or use them as classes with dataset.splits=false."
        )
    holdout = "validation" if "validation" in words else "test"
    return {"training": TRAINING, "validation": HOLDOUT, "test": HOLDOUT if holdout == "test" else UNUSED}


def _first_with_several(levels: Sequence[Level]) -> int | None:
    for depth, (numbers, _) in enumerate(levels):
        if len(np.unique(numbers[numbers >= 0])) > 1:
            return depth
    return None


def _merged(level: Level) -> Level:
    """Give the folders of a level an index per name: each split has a folder per class."""
    numbers, names = level
    distinct = {name: rank for rank, name in enumerate(sorted(set(names)))}
    ranks = np.array([distinct[name] for name in names] + [-1], dtype=np.int64)  # -1 stays -1
    return ranks[numbers], list(distinct)
