"""Pictures of one's own: what they become, and the shards that are made of them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.decoding import Look, RejectedImageError, Wanted, decode, look, without_warnings
from ddpm_kedro.images.listing import Listing, listing_of, shown
from ddpm_kedro.images.reading import content, reader_of
from ddpm_kedro.images.store import Shard
from ddpm_kedro.parameters import ImagesParameters, UserError

SHARD_BYTES = 2**23
LOOKED_AT = 256  # pictures, for the choice of size and channels
SIDES = (16, 32, 48, 64)
"""Pixels of a side that may be chosen where the pictures differ: what a first model learns in reasonable time."""


def describe(path: Path, listing: Listing) -> dict[str, Any]:
    """What some of the pictures look like, spread over all: sizes and channels, most frequent first."""
    reader, seen = reader_of(path), Counter[Look]()
    with without_warnings():
        for index in np.linspace(0, len(listing) - 1, min(LOOKED_AT, len(listing))).astype(int):
            with suppress(RejectedImageError):  # told when all are read
                seen[look(content(reader, listing, int(index)))] += 1
    return {"looks": [[each.height, each.width, each.channels, count] for each, count in seen.most_common()]}


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


def shards(path: Path, listing: Listing, wanted: Wanted, chosen: NDArray[np.int64]) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of some files; each can be made in another process."""
    each = max(1, SHARD_BYTES // (wanted.height * wanted.width * wanted.channels))
    for start in range(0, len(chosen), each):
        yield partial(make_shard, path, listing.take(chosen[start : start + each]), wanted)


@without_warnings()
def make_shard(path: Path, listing: Listing, wanted: Wanted) -> Shard:
    """Decode all files of a listing."""
    reader = reader_of(path)
    images = np.empty((len(listing), wanted.height, wanted.width, wanted.channels), dtype=np.uint8)
    taken, names, rejected = list[int](), list[str](), list[tuple[str, str]]()
    for index in range(len(listing)):
        name = shown(listing.name(index))
        try:
            images[len(taken)] = decode(content(reader, listing, index), wanted)
        except RejectedImageError as why:
            rejected.append((name, str(why)))
        else:
            taken.append(index)
            names.append(name)
    return Shard(images[: len(taken)], listing.labels[taken], tuple(names), tuple(rejected))


def divided(listing: Listing, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide files into training and hold-out by their names: files that come later move no others.

    Raises:
        UserError: where nothing would be left on one side.
    """
    key = str(seed).encode()
    drawn = [blake2b(listing.name(index), digest_size=8, key=key).digest() for index in range(len(listing))]
    held = np.frombuffer(b"".join(drawn), dtype=">u8") < np.uint64(fraction * 2**64)
    if held.all() or not held.any():
        raise UserError(
            f"images.holdout_fraction = {fraction} leaves {int(held.sum())} of {len(listing)} pictures for the "
            "hold-out; choose a fraction that leaves some on both sides."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def checked_listing(path: Path, digest: str) -> Listing:
    """The files, if they are those that were listed before.

    Raises:
        UserError: where they have changed.
    """
    listing = listing_of(path)
    if listing.digest != digest:
        raise UserError(f"The pictures in {path} changed while they were read. Run it again when all are there.")
    return listing
