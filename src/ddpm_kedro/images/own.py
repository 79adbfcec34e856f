"""Files in a folder or an archive: how they are divided, and the shards that are made of them."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.decoding import Wanted, decode, look
from ddpm_kedro.images.listing import Listing, kind_of, listing_of, shown
from ddpm_kedro.images.reading import content, reader_of
from ddpm_kedro.images.sharding import decoded, in_shards, looks_of, wanted_of
from ddpm_kedro.images.source import Manifest, Shards, brought, classes_of
from ddpm_kedro.images.store import Shard
from ddpm_kedro.images.unpacking import opener_of, unpacked
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters, UserError

logger = logging.getLogger(__name__)


class OwnPictures:
    """Files in a folder or an archive."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What lies there, and what some of the pictures look like. A folder and most archives are not copied."""
        path = brought(dataset, "a folder, or a .zip or .tar archive", is_archive)
        if path.is_file():
            path = unpacked(path, Path(dataset.download_folder) / dataset.source)
        listing = listing_of(path)
        where_none = f"the pictures in {path} do not lie in several subfolders, one a class"
        names = classes_of(dataset, listing.class_names, where_none)
        logger.info("%s: %s pictures%s.", path, f"{len(listing):,}", f" of {len(names)} classes" if names else "")
        if listing.others:
            logger.info("%s other files are passed over.", f"{listing.others:,}")
        manifest = {"folder": str(path), "class_names": names, "sha256": {path.name: listing.digest}}
        return manifest | {"files": len(listing), "others": listing.others, "looks": looks(path, listing)}

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """By the names of the files: those that come later move no others."""
        path = Path(manifest["folder"])
        wanted = wanted_of(manifest["looks"], images)
        logger.info(
            "Each becomes %d pixels high and %d wide (images.size), with images.channels=%d and images.fit=%s.",
            wanted.height, wanted.width, wanted.channels, wanted.fit,
        )  # fmt: skip

        listing = cache(partial(_listing, manifest))

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            chosen = divided(listing(), images.holdout_fraction, images.seed)[index]
            return shards(path, listing(), wanted, chosen)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        _listing(manifest)


def is_archive(path: Path) -> bool:
    """Whether a file is a .zip or .tar, perhaps compressed, by its content."""
    return bool(kind_of(path) or opener_of(path))


def _listing(manifest: Manifest) -> Listing:
    [digest] = manifest["sha256"].values()
    return checked_listing(Path(manifest["folder"]), digest)


def looks(path: Path, listing: Listing) -> list[list[int]]:
    """See :func:`looks_of`."""
    reader = reader_of(path)
    return looks_of(len(listing), lambda index: look(content(reader, listing, index)))


def shards(path: Path, listing: Listing, wanted: Wanted, chosen: NDArray[np.int64]) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of some files; each can be made in another process."""
    for rows in in_shards(chosen, wanted):
        yield partial(make_shard, path, listing.take(rows), wanted)


def make_shard(path: Path, listing: Listing, wanted: Wanted) -> Shard:
    """Decode all files of a listing."""
    reader = reader_of(path)
    return decoded(
        len(listing),
        wanted,
        lambda index: shown(listing.name(index)),
        lambda index: (decode(content(reader, listing, index), wanted), int(listing.labels[index])),
    )


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
