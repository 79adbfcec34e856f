"""List the image files of a folder or an archive, in a few arrays."""

import hashlib
import os
from array import array
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.class_names import one_line
from ddpm_kedro.ingestion.class_folders import find_folders
from ddpm_kedro.ingestion.containers import OUTSIDE, PROBLEMS, UNREADABLE, FileEntry, hints, walk

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
                      ".avif", ".jp2", ".pbm", ".pgm", ".ppm"})  # fmt: skip
DEPTH = 4  # levels of folders, from the top, whose names may be classes; levels with one folder also count
HIDDEN = "hidden"  # a kind of file that is skipped
MAX_KINDS = 10  # kinds of skipped files in a message
END, PLACE, SIZE, PROBLEM, COLUMNS = range(5)  # columns of Listing.files, and their number


@dataclass(frozen=True)
class Listing:
    """Files in the order in which they are read; a million files take no Python objects.

    Attributes:
        names: all names, concatenated.
        files: (N, COLUMNS): the end of each name in ``names``, place and size of the FileEntry, and index in PROBLEMS.
        labels: indices into ``class_names``, or -1, (N,).
        class_names: sorted names of the folders that are classes: see :func:`find_folders`.
        digest: SHA-256 of names, sizes and times of change.
        skipped_count: number of files that were skipped because their names are not names of images.
        parts: part of each file, (N,): TRAINING, HOLDOUT or UNUSED.
        splits: names of the folders of each part; empty if the folders are no splits.
        skipped: folder, kind and number of the skipped files, the most frequent first.
    """

    names: bytes
    files: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    digest: str
    skipped_count: int
    parts: NDArray[np.int64]
    splits: tuple[tuple[str, ...], ...] = ()
    skipped: tuple[tuple[str, str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> bytes:
        """Return a name as the file system or the archive has it."""
        return self.names[self.files[index - 1, END] if index else 0 : self.files[index, END]]

    def take(self, rows: NDArray[np.int64]) -> "Listing":
        """Return a listing of these files alone, with the digest of all."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        names = [self.name(row) for row in rows.tolist()]
        files = self.files[rows]
        files[:, END] = np.cumsum([len(name) for name in names], dtype=np.int64)
        return replace(self, names=b"".join(names), files=files, labels=self.labels[rows], parts=self.parts[rows])


def printable(name: bytes) -> str:
    """Return the name of a file on one line, whatever its bytes are."""
    return one_line(name.decode("utf-8", "backslashreplace"))


def is_image_name(name: bytes) -> bool:
    """Return whether a name has the suffix of an image, in any case, and neither file nor folder is hidden."""
    parts = name.split(b"/")
    hidden = any(part.startswith(b".") and part not in {b".", b".."} for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].decode("ascii", "replace").lower() in SUFFIXES


def list_files(path: Path, *, follow_links: bool = False, splits: bool = True) -> Listing:
    """List the image files of a folder, or of a .zip or .tar archive.

    The listing of an archive is cached until the archive changes.

    Args:
        path: path of the folder or archive.
        follow_links: whether links out of a folder are followed.
        splits: whether folders that all have names of splits (train, val, test, …) are splits, not classes.

    Raises:
        UserError: if there is neither a folder nor an archive, or no image in it.
    """
    if not path.is_file():
        return _list_files(path, follow_links, splits)
    status = path.stat()
    return _list_archive(path, splits, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _list_archive(path: Path, splits: bool, *_: int) -> Listing:
    return _list_files(path, False, splits)


def _list_files(path: Path, follow_links: bool, splits: bool) -> Listing:
    builder = _Builder()
    for entry in walk(path, follow_links=follow_links):
        builder.add(entry)
    skipped = tuple((printable(folder), kind, count) for (folder, kind), count in builder.skipped.most_common())
    if not builder.rows:
        other = f", but files with other names ({builder.skipped.total():,}): {describe(skipped)}" if skipped else ""
        raise UserError(
            f"There is no image in dataset.path = {path}{other}; names must end in {', '.join(sorted(SUFFIXES))}."
            f"{hints(kind for _, kind, _ in skipped)}"
        )
    # A folder that cannot be read and a name that leads out have neither split nor class.
    rows = np.array(builder.rows).reshape(-1, COLUMNS + DEPTH)
    outside = np.isin(rows[:, PROBLEM], [PROBLEMS.index(UNREADABLE), PROBLEMS.index(OUTSIDE)])
    numbers = np.where(outside, -1, rows[:, COLUMNS:].T)
    levels = [(column, [name for _, name in ids]) for ids, column in zip(builder.folders, numbers, strict=True)]
    folders = find_folders(levels, splits=splits)
    return Listing(
        names=bytes(builder.names),
        files=rows[:, :COLUMNS].copy(),
        labels=folders.labels,
        class_names=tuple(printable(name) for name in folders.class_names),
        digest=builder.hash.hexdigest(),
        skipped_count=builder.skipped.total(),
        parts=folders.parts,
        splits=folders.splits,
        skipped=skipped,
    )


def describe(skipped: tuple[tuple[str, str, int], ...]) -> str:
    """Return the skipped files by kind and folder, as part of a message."""
    kinds = [f"{kind}{f' in {folder}' if folder else ''} ({count:,})" for folder, kind, count in skipped[:MAX_KINDS]]
    return ", ".join(kinds) + (", and others" if len(skipped) > MAX_KINDS else "")


class _Builder:
    """Collects names and digest of files, counts skipped files, and numbers the folders of each level.

    Attributes:
        rows: rows of all files: the columns of Listing.files, and the number of the folder at each level or -1.
    """

    def __init__(self) -> None:
        self.names, self.hash, self.skipped = bytearray(), hashlib.sha256(), Counter[tuple[bytes, str]]()
        self.rows = array("q")
        self.folders: list[dict[tuple[int, bytes], int]] = [{} for _ in range(DEPTH)]

    def add(self, entry: FileEntry) -> None:
        *above, name = entry.name.split(b"/")
        if not is_image_name(entry.name) and entry.problem != UNREADABLE:
            hidden = any(part.startswith(b".") for part in (*above, name))
            suffix = printable(os.path.splitext(name)[1]).lower() or "without a suffix"
            self.skipped[b"/".join(above[:DEPTH]), HIDDEN if hidden else entry.problem or suffix] += 1
            return
        self.names += entry.name
        self.hash.update(b"%b\0%d\0%d\0%b\n" % (entry.name, entry.size, entry.stamp, entry.problem.encode()))
        number, numbers = 0, [-1] * DEPTH
        for level, folder in enumerate(above[:DEPTH]):
            ids = self.folders[level]
            number = numbers[level] = ids.setdefault((number, folder), len(ids))
        self.rows.fromlist([len(self.names), entry.place, entry.size, PROBLEMS.index(entry.problem), *numbers])
