"""Files in a folder or an archive: how they are divided, and the shards that are made of them."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.store import Shard
from ddpm_kedro.ingestion.class_folders import HOLDOUT, TRAINING, UNUSED
from ddpm_kedro.ingestion.decoding import Wanted, decode, look
from ddpm_kedro.ingestion.file_readers import content, reader_of
from ddpm_kedro.ingestion.listing import (
    HIDDEN,
    OUTSIDE,
    PROBLEMS,
    UNREADABLE,
    Listing,
    describe,
    hints,
    kind_of,
    listing_of,
    shown,
)
from ddpm_kedro.ingestion.sharding import decoded, in_shards, looks_of, wanted_of
from ddpm_kedro.ingestion.source import Manifest, Shards, brought, classes_of
from ddpm_kedro.ingestion.unpacking import opener_of, unpacked
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters

logger = logging.getLogger(__name__)
TOLD = 10  # names in a message
READABLE = [index for index, problem in enumerate(PROBLEMS) if problem not in {OUTSIDE, UNREADABLE}]
"""Numbers of the problems of files whose folders mean something, and of no problem."""


class OwnPictures:
    """Files in a folder or an archive."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What lies there, and what some of the pictures look like. A folder and most archives are not copied."""
        path = brought(dataset, "a folder, or a .zip or .tar archive", is_archive)
        if path.is_file():
            path = unpacked(path, Path(dataset.download_folder) / dataset.source)
        options = {"follow_links": dataset.follow_links, "splits": dataset.splits}
        listing = listing_of(path, **options)
        where_none = f"the pictures in {path} do not lie in several subfolders, one a class"
        names = classes_of(dataset, listing.class_names, where_none)
        rows = taken(listing, classes=bool(names))
        logger.info("%s: %s pictures%s.", path, f"{len(rows):,}", f" of {len(names)} classes" if names else "")
        _log_splits(listing)
        if names:
            _check_classes(path, listing, ask=dataset.classes is None)
        _log_passed_over(listing)
        manifest: Manifest = {"folder": str(path), "class_names": names, "sha256": {path.name: listing.digest}}
        parts = [name for part in listing.splits for name in part]
        manifest |= {"files": len(listing), "others": listing.others, "options": options, "parts": parts}
        return manifest | {"looks": looks(path, listing, rows)}

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
            classes = bool(manifest["class_names"])
            chosen = divided(listing(), images.holdout_fraction, images.seed, classes=classes)[index]
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
    return checked_listing(Path(manifest["folder"]), digest, **manifest.get("options", {}))


def _log_splits(listing: Listing) -> None:
    """Log which folders are splits, and what each is for."""
    if not listing.splits:
        return
    counts = np.bincount(listing.parts, minlength=len(listing.splits)).tolist()
    uses = [
        f"{' and '.join(names)} ({count:,}) {'are' if len(names) > 1 else 'is'} {use}"
        for names, count, use in zip(listing.splits, counts, ("training", "the hold-out", "not used"), strict=True)
        if names
    ]
    logger.info("The folders are splits: %s. dataset.splits=false takes them as classes.", ", ".join(uses))


def _check_classes(path: Path, listing: Listing, *, ask: bool) -> None:
    """Name images beside the folders of classes, and refuse classes that no training image has.

    Args:
        ask: whether more images beside the folders than in them are an error.
    """
    strays = np.flatnonzero((listing.labels < 0) & np.isin(listing.problems, READABLE))
    left_out = "dataset.classes=false takes all images without classes"
    if len(strays):
        names = ", ".join(shown(listing.name(int(index))) for index in strays[:TOLD])
        beside = f"{len(strays):,} images lie beside the folders of classes in {path}: {names}"
        beside += ", …" if len(strays) > TOLD else ""
        if ask and len(strays) > len(listing) - len(strays):
            raise UserError(
                f"{beside}. These are more than lie in the folders: dataset.classes=true leaves them out, {left_out}."
            )
        logger.warning("%s. They are left out; %s.", beside, left_out)
    without = set(listing.class_names) - {
        listing.class_names[label] for label in np.unique(listing.labels[listing.parts == TRAINING]) if label >= 0
    }
    if without:
        raise UserError(
            f"{path} has no training image of the classes {', '.join(sorted(without)[:TOLD])}: the folders "
            f"{' and '.join(listing.splits[TRAINING])} have none of that name. Add some, remove the folders that the "
            "other splits have of that name, or take the splits as classes with dataset.splits=false."
        )


def _log_passed_over(listing: Listing) -> None:
    """Warn about files in subfolders and links, for a class may be lost with them."""
    if not listing.others:
        return
    kinds = [kind for _, kind, _ in listing.passed_over]
    harmless = all(kind == HIDDEN or not (folder or kind in PROBLEMS) for folder, kind, _ in listing.passed_over)
    level = logging.INFO if harmless else logging.WARNING
    logger.log(
        level,
        "%s other files are passed over: %s.%s",
        f"{listing.others:,}",
        describe(listing.passed_over),
        hints(kinds),
    )


def looks(path: Path, listing: Listing, rows: NDArray[np.int64]) -> list[list[int]]:
    """Look at some of these files: see :func:`looks_of`."""
    reader = reader_of(path)
    return looks_of(len(rows), lambda index: look(content(reader, listing, int(rows[index]))), hints)


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


def divided(
    listing: Listing, fraction: float, seed: int, *, classes: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide files into training and hold-out by their splits, else by their names: new files move no others.

    Args:
        fraction: of the files that are held out, if there are no splits.
        classes: whether files that are in no class are left out; each class keeps a training image.

    Raises:
        UserError: where nothing would be left on one side.
    """
    rows = taken(listing, classes=classes)
    parts = listing.parts[rows]
    if (parts == HOLDOUT).any():
        return rows[parts == TRAINING], rows[parts == HOLDOUT]
    key = str(seed).encode()
    digests = [blake2b(listing.name(index), digest_size=8, key=key).digest() for index in rows]
    hashes = np.frombuffer(b"".join(digests), dtype=">u8")
    held = hashes < np.uint64(fraction * 2**64)
    if held.all() or not held.any():
        raise UserError(
            f"images.holdout_fraction = {fraction} leaves {int(held.sum())} of {len(rows)} pictures for the "
            "hold-out; choose a fraction that leaves some on both sides."
        )
    kept = _kept(listing.labels[rows], hashes, held) if classes else np.zeros(0, dtype=np.int64)
    training = ~held
    training[kept] = True
    if held.sum() > len(kept):  # else these images are in both parts, which is in the report
        held[kept] = False
    return rows[training], rows[held]


def taken(listing: Listing, *, classes: bool) -> NDArray[np.int64]:
    """Return the files that are read: not those of unused splits nor, with classes, those of no class."""
    used = listing.parts != UNUSED
    if classes and listing.class_names:
        used &= (listing.labels >= 0) | ~np.isin(listing.problems, READABLE)
    return np.flatnonzero(used)


def _kept(labels: NDArray[np.int64], hashes: NDArray[np.uint64], held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return one file of each class whose files would all be held out: the one with the largest hash."""
    lost = np.setdiff1d(labels[held], labels[~held])
    rows = np.flatnonzero(np.isin(labels, lost[lost >= 0]))
    rows = rows[np.lexsort((hashes[rows], labels[rows]))]
    return rows[np.flatnonzero(np.diff(labels[rows], append=-1))]


def checked_listing(path: Path, digest: str, **options: bool) -> Listing:
    """The files, if they are those that were listed before.

    Raises:
        UserError: where they have changed.
    """
    listing = listing_of(path, **options)
    if listing.digest != digest:
        raise UserError(f"The pictures in {path} changed while they were read. Run it again when all are there.")
    return listing
