"""What lies in a folder or an archive, found without opening a picture and kept in a few arrays."""

import hashlib
import os
import stat
import tarfile
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.images.class_names import one_line
from ddpm_kedro.ingestion.class_folders import Folders, find_folders

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
                      ".avif", ".jp2", ".pbm", ".pgm", ".ppm"})  # fmt: skip
MAX_BYTES = 2**28
DEPTH = 4  # folders, from the top, whose names may be classes: those above hold but one folder
LINK_OUT, LINK_TO_FOLDER, OUTSIDE = "it is a link out of the folder", "it is a link to a folder", "its name leads out"
LINK_TO_NOWHERE = "it is a link to nothing"
SPECIAL, ENCRYPTED, HUGE = "it is no regular file", "it is encrypted", f"it has more than {MAX_BYTES:,} bytes"
UNREADABLE, FORBIDDEN = "the folder cannot be read", "it may not be read"
LINK_TWICE = "it is a link to a folder that is listed elsewhere, or to one above"
PROBLEMS = ("", LINK_OUT, LINK_TO_FOLDER, OUTSIDE, SPECIAL, ENCRYPTED, HUGE, UNREADABLE, FORBIDDEN, LINK_TO_NOWHERE,
            LINK_TWICE)  # fmt: skip
HINTS = {LINK_OUT: "dataset.follow_links=true follows links out of the folder."}
HIDDEN, NAMED = "hidden", 10  # kinds of files that are passed over, in a message


class Found(NamedTuple):
    """A file that might be a picture.

    Attributes:
        name: its path below the top, as the file system or the archive has it.
        place: where an archive has it: an offset, or a number.
        size: in bytes.
        stamp: when it was changed.
        problem: why it is not read, one of PROBLEMS.
    """

    name: bytes
    place: int
    size: int
    stamp: int
    problem: str = ""


@dataclass(frozen=True)
class Listing:
    """Files in the order in which they are read; millions of them take no Python objects.

    Attributes:
        names: all names, one behind the other.
        ends: (N,) where each name ends.
        places: (N,) see :class:`Found`.
        sizes: (N,) bytes.
        problems: (N,) numbers in PROBLEMS.
        labels: (N,) numbers in ``class_names``, or -1.
        class_names: sorted; of the folders at the first level that has several, or below it if those are splits.
        digest: SHA-256 of names, sizes and times of change.
        others: how many files were passed over, for their names are not those of pictures.
        parts: (N,) which part of the images each file belongs to: see :class:`Folders`.
        splits: names of the folders of each part; empty if the folders are no splits.
        passed_over: folder, kind and number of the files that were passed over, the most frequent first.
    """

    names: bytes
    ends: NDArray[np.int64]
    places: NDArray[np.int64]
    sizes: NDArray[np.int64]
    problems: NDArray[np.int8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    digest: str
    others: int
    parts: NDArray[np.int64]
    splits: tuple[tuple[str, ...], ...] = ()
    passed_over: tuple[tuple[str, str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> bytes:
        """As the file system or the archive has it."""
        return self.names[self.ends[index - 1] if index else 0 : self.ends[index]]

    def take(self, indices: NDArray[np.int64]) -> "Listing":
        """These files alone, with the digest of all."""
        names = [self.name(int(index)) for index in indices]
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return replace(
            self,
            names=b"".join(names),
            ends=ends,
            places=self.places[indices],
            sizes=self.sizes[indices],
            problems=self.problems[indices],
            labels=self.labels[indices],
            parts=self.parts[indices],
        )


def shown(name: bytes) -> str:
    """A file's name on one line, whatever its bytes are."""
    return one_line(name.decode("utf-8", "backslashreplace"))


def is_picture(name: bytes) -> bool:
    """By its suffix, in any case; hidden files, and those in hidden folders, are none."""
    parts = name.split(b"/")
    hidden = any(part.startswith(b".") and part not in {b".", b".."} for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].decode("ascii", "replace").lower() in SUFFIXES


def listing_of(path: Path, *, follow_links: bool = False, splits: bool = True) -> Listing:
    """All files of a folder, or of a .zip or .tar archive; that of an archive is kept while the archive is the same.

    Args:
        path: of the folder or archive.
        follow_links: whether links out of a folder are followed.
        splits: whether folders that are all called like splits (train, val, test, …) are splits, not classes.

    Raises:
        UserError: where there is nothing like that, or not one picture in it.
    """
    if not path.is_file():
        return _listed(path, follow_links, splits)
    status = path.stat()
    return _of_archive(path, splits, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _of_archive(path: Path, splits: bool, *_: int) -> Listing:
    return _listed(path, False, splits)


def _listed(path: Path, follow_links: bool, splits: bool) -> Listing:
    builder = _Builder()
    for found in walk(path, follow_links=follow_links):
        builder.add(found)
    if not builder.ends:
        passed_over = builder.listing(splits=False).passed_over
        other = f", though files of other names ({builder.others:,}): {describe(passed_over)}" if builder.others else ""
        raise UserError(
            f"There is no picture in dataset.path = {path}{other}; names must end in {', '.join(sorted(SUFFIXES))}."
            f"{hints(kind for _, kind, _ in passed_over)}"
        )
    return builder.listing(splits=splits)


def describe(passed_over: tuple[tuple[str, str, int], ...]) -> str:
    """Return files that were passed over in words, by kind and folder."""
    some = [f"{kind}{f' in {folder}' if folder else ''} ({count:,})" for folder, kind, count in passed_over[:NAMED]]
    return ", ".join(some) + (", and others" if len(passed_over) > NAMED else "")


def hints(problems: Iterable[str]) -> str:
    """Return what to do about these problems, as the end of a message."""
    return "".join(f" {HINTS[problem]}" for problem in dict.fromkeys(problems) if problem in HINTS)


def walk(path: Path, *, follow_links: bool = False) -> Iterator[Found]:
    """What :func:`listing_of` lists, pictures or not."""
    if not path.exists():
        raise MissingSourceError(f"dataset.path = {path} does not exist.")
    if (kind := kind_of(path)) not in KINDS:
        raise UserError(f"dataset.path = {path} is neither a folder nor a .zip or .tar archive, or it is cut short.")
    return _in_folder(path, follow_links=True) if follow_links and kind == "folder" else KINDS[kind](path)


def kind_of(path: Path) -> str:
    """Folder, zip or tar, by content."""
    if path.is_dir():
        return "folder"
    if zipfile.is_zipfile(path):
        return "zip"
    try:
        with tarfile.open(path, "r:"):
            return "tar"
    except Exception:
        return ""


def _in_folder(top: Path, follow_links: bool) -> Iterator[Found]:
    """In the order of the bytes of their names, folder by folder."""
    base, links = os.fsencode(top), _Links(os.path.realpath(os.fsencode(top)), follow_links)
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(base, below)) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            if not below:
                raise UserError(f"The folder dataset.path = {top} may not be read.") from error
            yield Found(below, 0, 0, 0, UNREADABLE)
            continue
        folders = list[bytes]()
        for entry in inside:
            name, hidden = os.path.join(below, entry.name), entry.name.startswith(b".")
            problem = "" if hidden or not entry.is_symlink() else links.problem(entry)
            if entry.is_dir(follow_symlinks=not problem):
                folders += [] if hidden else [name]
            else:
                yield Found(name, 0, 0, 0, problem) if problem else _in_scan(entry, name)
        waiting += reversed(folders)


class _Links:
    """Links of a folder: those to files in it are followed, others only when asked for, and to each folder once."""

    def __init__(self, root: bytes, follow: bool) -> None:
        self.root, self.follow, self.seen = root, follow, set[bytes]()

    def problem(self, entry: "os.DirEntry[bytes]") -> str:
        """Return why a link is not followed."""
        target = os.path.realpath(entry.path)
        common = os.path.commonpath([self.root, target])
        if common != self.root and not self.follow:
            return LINK_OUT
        if not os.path.isdir(target):
            return "" if os.path.exists(target) else LINK_TO_NOWHERE
        if not self.follow:
            return LINK_TO_FOLDER
        if common in {self.root, target} or target in self.seen:
            return LINK_TWICE
        self.seen.add(target)
        return ""


def _in_scan(entry: "os.DirEntry[bytes]", name: bytes) -> Found:
    try:
        status = entry.stat()
    except OSError:
        return Found(name, 0, 0, 0, LINK_TO_NOWHERE)
    problem = "" if stat.S_ISREG(status.st_mode) else SPECIAL
    if not problem and not os.access(entry.path, os.R_OK):  # known now, so that it makes a difference when it may be
        problem = FORBIDDEN
    return Found(name, 0, status.st_size, status.st_mtime_ns, problem or _size_problem(status.st_size))


def _in_zip(path: Path) -> Iterator[Found]:
    with _archive(path), zipfile.ZipFile(path) as archive:
        for number, member in enumerate(archive.infolist()):
            if member.is_dir():
                continue
            name = member.filename.encode("utf-8", "surrogateescape")
            mode = member.external_attr >> 16
            special = stat.S_IFMT(mode) not in {0, stat.S_IFREG}
            problem = SPECIAL if special else ENCRYPTED if member.flag_bits & 1 else _size_problem(member.file_size)
            yield Found(name, number, member.file_size, member.CRC, _name_problem(name) or problem)


def _in_tar(path: Path) -> Iterator[Found]:
    with _archive(path), tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it keeps all that it has seen
            if member.isdir():
                continue
            name = member.name.encode("utf-8", "surrogateescape")
            problem = SPECIAL if not member.isreg() or member.issparse() else _size_problem(member.size)
            yield Found(name, member.offset_data, member.size, int(member.mtime), _name_problem(name) or problem)


@contextmanager
def _archive(path: Path) -> Iterator[None]:
    """What is wrong with an archive as a whole becomes a UserError that names it."""
    try:
        yield
    except Exception as error:  # the readers of archives raise many kinds: an empty name is an IndexError of zipfile
        raise UserError(f"The archive dataset.path = {path} is damaged: {error}") from error


def _name_problem(name: bytes) -> str:
    path = PurePosixPath(os.fsdecode(name).replace("\\", "/"))
    return OUTSIDE if path.is_absolute() or ".." in path.parts else ""


def _size_problem(size: int) -> str:
    return HUGE if size > MAX_BYTES else ""


KINDS: dict[str, Callable[[Path], Iterator[Found]]] = {
    "folder": partial(_in_folder, follow_links=False),
    "zip": _in_zip,
    "tar": _in_tar,
}


class _Builder:
    def __init__(self) -> None:
        self.names, self.ends, self.places, self.sizes = bytearray(), array("q"), array("q"), array("q")
        self.problems = array("b")
        self.folders: list[dict[tuple[int, bytes], int]] = [{} for _ in range(DEPTH)]
        self.levels = [array("i") for _ in range(DEPTH)]
        self.hash, self.passed_over = hashlib.sha256(), Counter[tuple[bytes, str]]()

    @property
    def others(self) -> int:
        return self.passed_over.total()

    def add(self, found: Found) -> None:
        if not is_picture(found.name) and found.problem != UNREADABLE:
            *above, name = found.name.split(b"/")
            hidden = any(part.startswith(b".") for part in (*above, name))
            suffix = shown(os.path.splitext(name)[1]).lower() or "without a suffix"
            self.passed_over[b"/".join(above[:DEPTH]), HIDDEN if hidden else found.problem or suffix] += 1
            return
        self.names += found.name
        self.ends.append(len(self.names))
        self.places.append(found.place)
        self.sizes.append(found.size)
        self.problems.append(PROBLEMS.index(found.problem))
        self.hash.update(b"%b\0%d\0%d\0%b\n" % (found.name, found.size, found.stamp, found.problem.encode()))
        above, number = found.name.split(b"/")[:-1], 0
        if found.problem == OUTSIDE:  # no folder here
            above = []
        for level, ids in enumerate(self.folders):
            known = level < len(above)
            number = ids.setdefault((number, above[level]), len(ids)) if known else -1
            self.levels[level].append(number)

    def listing(self, *, splits: bool) -> Listing:
        ends, places, sizes = (np.array(column, dtype=np.int64) for column in (self.ends, self.places, self.sizes))
        problems, folders = np.array(self.problems, dtype=np.int8), self._folders(splits=splits)
        names, digest = bytes(self.names), self.hash.hexdigest()
        class_names = tuple(shown(name) for name in folders.class_names)
        passed_over = tuple((shown(folder), kind, count) for (folder, kind), count in self.passed_over.most_common())
        more = folders.parts, folders.splits, passed_over
        return Listing(names, ends, places, sizes, problems, folders.labels, class_names, digest, self.others, *more)

    def _folders(self, *, splits: bool) -> Folders:
        """What the folders mean; a folder that cannot be read and a name that leads out mean nothing."""
        known = ~np.isin(np.array(self.problems, dtype=np.int8), [PROBLEMS.index(UNREADABLE), PROBLEMS.index(OUTSIDE)])
        levels = [
            (np.where(known, np.array(level, dtype=np.int64), -1), [name for _, name in ids])
            for ids, level in zip(self.folders, self.levels, strict=True)
        ]
        return find_folders(levels, splits=splits)
