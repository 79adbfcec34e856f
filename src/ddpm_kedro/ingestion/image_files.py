"""Image files in a folder or an archive."""

import errno
import logging
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.class_folders import HOLDOUT, TRAINING, UNUSED
from ddpm_kedro.ingestion.collection import (
    ImageCollection,
    ImageFormat,
    Inspection,
    LabelledImage,
    Probe,
    RejectedImageError,
)
from ddpm_kedro.ingestion.containers import OUTSIDE, PROBLEMS, UNREADABLE, Reader, hints, kind_of, open_reader
from ddpm_kedro.ingestion.decoding import decode, inspect, probe
from ddpm_kedro.ingestion.listing import HIDDEN, PLACE, PROBLEM, SIZE, Listing, describe, list_files, printable
from ddpm_kedro.ingestion.probing import probe_source
from ddpm_kedro.ingestion.source import Manifest, Source, choose_class_names, fetch_path
from ddpm_kedro.ingestion.unpacking import opener_of, unpack
from ddpm_kedro.parameters import DatasetParameters

logger = logging.getLogger(__name__)
MAX_NAMES = 10  # names of files in a message
MACHINE_ERRORS = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the machine, not of a file: they end the run, and the next run resumes."""
WITH_FOLDER = [index for index, problem in enumerate(PROBLEMS) if problem not in {OUTSIDE, UNREADABLE}]
"""Indices of the problems of files whose folders may be classes, and of no problem."""


@dataclass(frozen=True)
class ImageFiles(ImageCollection):
    """Files of a listing."""

    path: Path
    listing: Listing

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # noqa: D102
        return self.listing.class_names

    @property
    def labels(self) -> NDArray[np.int64]:  # type: ignore[override]  # noqa: D102
        return self.listing.labels

    def __len__(self) -> int:
        return len(self.listing)

    def name(self, index: int) -> str:  # noqa: D102
        return printable(self.listing.name(index))

    def probe(self, index: int) -> Probe:  # noqa: D102
        return probe(read_file(self._reader, self.listing, index))

    def inspect(self, index: int) -> Inspection:  # noqa: D102
        return inspect(read_file(self._reader, self.listing, index))

    def read(self, index: int, target: ImageFormat) -> LabelledImage:  # noqa: D102
        return decode(read_file(self._reader, self.listing, index), target, int(self.listing.labels[index]))

    def keys(self) -> Iterable[bytes]:  # noqa: D102
        return map(self.listing.name, range(len(self)))

    def take(self, rows: NDArray[np.int64]) -> "ImageFiles":  # noqa: D102
        return ImageFiles(self.path, self.listing.take(rows))

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self.path)


class ImageFileSource(Source):
    """A folder or an archive."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """List the files and probe some of them. A folder and most archives are not copied."""
        path = fetch_path(dataset, "a folder, or a .zip or .tar archive", is_archive)
        if path.is_file():
            path = unpack(path, Path(dataset.download_folder) / dataset.source)
        options = {"follow_links": dataset.follow_links, "splits": dataset.splits}
        listing = list_files(path, **options)
        problem = f"the images in {path} are not in several subfolders, one per class"
        names = choose_class_names(dataset, listing.class_names, problem)
        images = ImageFiles(path, listing.take(usable_rows(listing, classes=bool(names))))
        logger.info("%s: %s images%s.", path, f"{len(images):,}", f" of {len(names)} classes" if names else "")
        _log_splits(listing)
        if names:
            _check_classes(path, listing, strict=dataset.classes is None)
        _log_skipped(listing)
        return probe_source(images) | {
            "folder": str(path),
            "class_names": names,
            "sha256": {path.name: listing.digest},
            "files": len(listing),
            "others": listing.skipped_count,
            "options": options,
            "parts": [name for part in listing.splits for name in part],
        }

    def open(self, manifest: Manifest) -> tuple[ImageFiles, ImageFiles | None]:
        """List the files again; the holdout images are None if the folders are no splits."""
        listing = _list_again(manifest)
        images = ImageFiles(Path(manifest["folder"]), listing)
        rows = usable_rows(listing, classes=bool(manifest["class_names"]))
        training, holdout = (rows[listing.parts[rows] == part] for part in (TRAINING, HOLDOUT))
        return images.take(training), images.take(holdout) if len(holdout) else None

    def check(self, manifest: Manifest) -> None:
        """Compare a new listing with the manifest."""
        _list_again(manifest)


def read_file(reader: Reader, listing: Listing, index: int) -> bytes:
    """Return the content of a file of the listing.

    Raises:
        RejectedImageError: if it cannot be read.
    """
    if problem := PROBLEMS[listing.files[index, PROBLEM]]:
        raise RejectedImageError(problem)
    size = int(listing.files[index, SIZE])
    try:
        data = reader.read(listing.name(index), int(listing.files[index, PLACE]), size)
    except FileNotFoundError:
        raise RejectedImageError("it is gone") from None
    except PermissionError as error:
        raise RejectedImageError("it may not be read") from error
    except MemoryError:
        raise
    except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        raise RejectedImageError("it cannot be read") from error
    except Exception as error:  # zlib, lzma and bz2 have errors of their own
        raise RejectedImageError("it cannot be unpacked") from error
    if len(data) < size:
        raise RejectedImageError("it is cut short")
    return data


def is_archive(path: Path) -> bool:
    """Return whether a file is a .zip or .tar, compressed or not, by its content."""
    return bool(kind_of(path) or opener_of(path))


def usable_rows(listing: Listing, *, classes: bool) -> NDArray[np.int64]:
    """Return the rows of the files to read: without unused splits and, with classes, without files of no class."""
    used = listing.parts != UNUSED
    if classes and listing.class_names:
        used &= (listing.labels >= 0) | ~np.isin(listing.files[:, PROBLEM], WITH_FOLDER)
    return np.flatnonzero(used)


def _list_again(manifest: Manifest) -> Listing:
    path, [digest] = Path(manifest["folder"]), manifest["sha256"].values()
    listing = list_files(path, **manifest.get("options", {}))
    if listing.digest != digest:
        raise UserError(f"The images in {path} changed while they were read. Run it again when all are there.")
    return listing


def _log_splits(listing: Listing) -> None:
    """Log which folders are splits, and what each is used for."""
    if not listing.splits:
        return
    counts = np.bincount(listing.parts, minlength=len(listing.splits)).tolist()
    uses = [
        f"{' and '.join(names)} ({count:,}) {'are' if len(names) > 1 else 'is'} {use}"
        for names, count, use in zip(listing.splits, counts, ("training", "the holdout", "not used"), strict=True)
        if names
    ]
    logger.info("The folders are splits: %s. dataset.splits=false uses them as classes.", ", ".join(uses))


def _check_classes(path: Path, listing: Listing, *, strict: bool) -> None:
    """Warn about images outside of the folders of classes, and refuse classes without a training image.

    If ``strict``, it is an error if most images are outside of the folders.
    """
    strays = np.flatnonzero((listing.labels < 0) & np.isin(listing.files[:, PROBLEM], WITH_FOLDER))
    remedy = "dataset.classes=false uses all images without classes"
    if len(strays):
        names = ", ".join(printable(listing.name(index)) for index in strays[:MAX_NAMES].tolist())
        beside = f"{len(strays):,} images lie beside the folders of classes in {path}: {names}"
        beside += ", …" if len(strays) > MAX_NAMES else ""
        if strict and len(strays) > len(listing) - len(strays):
            raise UserError(
                f"{beside}. These are more than lie in the folders: dataset.classes=true leaves them out, {remedy}."
            )
        logger.warning("%s. They are left out; %s.", beside, remedy)
    trained = np.unique(listing.labels[listing.parts == TRAINING])
    untrained = set(listing.class_names) - {listing.class_names[label] for label in trained if label >= 0}
    if untrained:
        raise UserError(
            f"{path} has no training image of the classes {', '.join(sorted(untrained)[:MAX_NAMES])}: the folders "
            f"{' and '.join(listing.splits[TRAINING])} have no folder of that name. Add images, remove the folders of "
            "that name from the other splits, or use the splits as classes with dataset.splits=false."
        )


def _log_skipped(listing: Listing) -> None:
    """Log skipped files; warn about links and files in subfolders, because a class may be lost with them."""
    if not listing.skipped:
        return
    kinds = [kind for _, kind, _ in listing.skipped]
    harmless = all(kind == HIDDEN or not (folder or kind in PROBLEMS) for folder, kind, _ in listing.skipped)
    level, count = logging.INFO if harmless else logging.WARNING, f"{listing.skipped_count:,}"
    logger.log(level, "%s other files are skipped: %s.%s", count, describe(listing.skipped), hints(kinds))
