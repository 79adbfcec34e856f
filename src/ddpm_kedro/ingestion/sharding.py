"""What every source of many pictures does: look at some, decode all, and cut them into shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import Original, Shard
from ddpm_kedro.ingestion.decoding import Look, Picture, RejectedImageError, Wanted, without_warnings
from ddpm_kedro.parameters import ImagesParameters

SHARD_BYTES = 2**23
LOOKED_AT = 256  # pictures, for the choice of size and channels
SIDES = (16, 32, 48, 64)
"""Pixels of a side that may be chosen where the pictures differ: what a first model learns in reasonable time."""
Labelled = tuple[Picture, int]
"""A picture, and its class or -1."""


@without_warnings()
def looks_of(
    count: int,
    look: Callable[[int], Look],
    hints: Callable[[Iterable[str]], str] = lambda _: "",
    at_most: int = LOOKED_AT,
) -> list[list[int]]:
    """What some of the pictures look like, spread over all: height, width, channels and how often, most frequent first.

    Args:
        count: of all pictures.
        look: at one of them by its number; may raise RejectedImageError.
        hints: returns what to do about the reasons for which pictures are rejected.
        at_most: so many are looked at.

    Raises:
        UserError: if there are some and none of them can be read, with the reasons.
    """
    seen, reasons = Counter[Look](), Counter[str]()
    for index in np.linspace(0, count - 1, min(at_most, count)).astype(int):
        try:
            seen[look(int(index))] += 1
        except RejectedImageError as error:  # told when all are read
            reasons[str(error)] += 1
    if reasons and not seen:
        why = ", ".join(f"{reason} ({number:,})" for reason, number in reasons.most_common())
        raise UserError(
            f"Not one of the {reasons.total():,} pictures that were looked at can be read: {why}.{hints(reasons)}"
        )
    return [[each.height, each.width, each.channels, often] for each, often in seen.most_common()]


def wanted_of(looks: list[list[int]], images: ImagesParameters) -> Wanted:
    """What all pictures become: what the parameters say, else what suits those that were looked at.

    One size, if it is small, is kept; else the largest of SIDES that half of the pictures have. They stay grey where
    all are.

    Raises:
        UserError: where none of them could be read.
    """
    if not looks:
        raise UserError("Not one of the pictures that were looked at can be read: are they pictures at all?")
    if images.size is None:
        height, width = _usual_size(looks)
    else:
        height, width = images.size if isinstance(images.size, tuple) else (images.size, images.size)
    channels = images.channels or max(look[2] for look in looks)
    return Wanted(height, width, channels, images.fit, images.background, images.max_pixels)


def _usual_size(looks: list[list[int]]) -> tuple[int, int]:
    sizes = {(height, width) for height, width, *_ in looks}
    if len(sizes) == 1 and max(max(sizes)) <= SIDES[-1]:
        return sizes.pop()
    sides = sorted(min(height, width) for height, width, _, count in looks for _ in range(count))
    usual = sides[len(sides) // 2]
    side = max((each for each in SIDES if each <= usual), default=SIDES[0])
    return side, side


def in_shards(rows: NDArray[np.int64], wanted: Wanted) -> Iterator[NDArray[np.int64]]:
    """The numbers of the pictures of each shard, in turn."""
    each = max(1, SHARD_BYTES // (wanted.height * wanted.width * wanted.channels))
    for start in range(0, len(rows), each):
        yield rows[start : start + each]


@without_warnings()
def decoded(count: int, wanted: Wanted, name: Callable[[int], str], read: Callable[[int], Labelled]) -> Shard:
    """The pictures 0 … count-1 as a shard; where ``read`` raises RejectedImageError, name and reason are listed."""
    images = np.empty((count, wanted.height, wanted.width, wanted.channels), dtype=np.uint8)
    labels, names, rejected = list[int](), list[str](), list[tuple[str, str]]()
    originals = list[Original]()
    for index in range(count):
        try:
            picture, label = read(index)
            images[len(names)] = picture.pixels
        except RejectedImageError as why:
            rejected.append((name(index), str(why)))
        else:
            labels.append(label)
            originals.append(picture.original)
            names.append(name(index))
    classes = np.array(labels, dtype=np.int64)
    return Shard(images[: len(names)], classes, tuple(names), tuple(rejected), tuple(originals))
