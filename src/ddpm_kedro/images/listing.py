"""What lies in a folder or an archive, found without opening a picture and kept in a few arrays."""

import hashlib
import mmap
import os
import re
import stat
import tarfile
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.parameters import MissingSourceError, UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_BYTES = 2**28
BLOCK, PLAIN, OCTAL = 512, {b"0", b"\0", b"5"}, re.compile(rb" *[0-7]*[ \0]*")
"""Of a .tar: bytes of a header, kinds of members that are files or folders, and how their numbers are written."""
DEPTH = 4  # folders, from the top, whose names may be classes: those above hold but one folder
LINK_OUT, LINK_TO_FOLDER, OUTSIDE = "it is a link out of the folder", "it is a link to a folder", "its name leads out"
LINK_TO_NOWHERE = "it is a link to nothing"
SPECIAL, ENCRYPTED, HUGE = "it is no regular file", "it is encrypted", f"it has more than {MAX_BYTES:,} bytes"
UNREADABLE, FORBIDDEN = "the folder cannot be read", "it may not be read"
PROBLEMS = ("", LINK_OUT, LINK_TO_FOLDER, OUTSIDE, SPECIAL, ENCRYPTED, HUGE, UNREADABLE, FORBIDDEN, LINK_TO_NOWHERE)


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
        class_names: sorted; of the folders at the first level that has several.
        digest: SHA-256 of names, sizes and times of change.
        others: how many files were passed over, for their names are not those of pictures.
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
        )


def shown(name: bytes) -> str:
    """A file's name on one line, whatever its bytes are."""
    text = name.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def is_picture(name: bytes) -> bool:
    """By its suffix, in any case; hidden files, and those in hidden folders, are none."""
    parts = name.split(b"/")
    hidden = any(part.startswith(b".") and part not in {b".", b".."} for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].decode("ascii", "replace").lower() in SUFFIXES


def listing_of(path: Path) -> Listing:
    """All files of a folder, or of a .zip or .tar archive; that of an archive is kept while the archive is the same.

    Raises:
        UserError: where there is nothing like that, or not one picture in it.
    """
    if not path.is_file():
        return _listed(path)
    status = path.stat()
    return _of_archive(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _of_archive(path: Path, *_: int) -> Listing:
    return _listed(path)


def _listed(path: Path) -> Listing:
    builder = _Builder()
    for found in walk(path):
        builder.add(found)
    if not builder.ends:
        other = f", though files of other names ({builder.others:,})" if builder.others else ""
        raise UserError(
            f"There is no picture in dataset.path = {path}{other}; names must end in {', '.join(sorted(SUFFIXES))}."
        )
    return builder.listing()


def walk(path: Path) -> Iterator[Found]:
    """What :func:`listing_of` lists, pictures or not."""
    if not path.exists():
        raise MissingSourceError(f"dataset.path = {path} does not exist.")
    if (kind := kind_of(path)) not in KINDS:
        raise UserError(f"dataset.path = {path} is neither a folder nor a .zip or .tar archive, or it is cut short.")
    return KINDS[kind](path)


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


def _in_folder(top: Path) -> Iterator[Found]:
    """In the order of the bytes of their names, folder by folder; links to folders are not followed."""
    base, root = os.fsencode(top), os.path.realpath(os.fsencode(top))
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
        folders = [os.path.join(below, entry.name) for entry in inside if _is_folder(entry)]
        waiting += reversed(folders)
        for entry in inside:
            if not _is_folder(entry) and not (entry.name.startswith(b".") and entry.is_dir()):
                yield _in_scan(entry, os.path.join(below, entry.name), root)


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    """One to look into: not hidden, and no link."""
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(b".")


def _in_scan(entry: "os.DirEntry[bytes]", name: bytes, root: bytes) -> Found:
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if os.path.commonpath([root, target]) != root:
            return Found(name, 0, 0, 0, LINK_OUT)
        if os.path.isdir(target):
            return Found(name, 0, 0, 0, LINK_TO_FOLDER)
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
    members = plain_members(path)
    yield from members if members is not None else any_members(path)


def plain_members(path: Path) -> list[Found] | None:
    """Those of an archive of files and folders with short names and nothing else, in half the time; else None."""
    found, place, end = list[Found](), 0, path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while place + BLOCK <= end:
            header = content[place : place + BLOCK]
            if not any(header):  # after the last one
                return found
            kind, magic = header[156:157], header[257:263]
            if (
                kind not in PLAIN
                or magic not in {b"ustar\0", b"ustar "}
                or not all(map(OCTAL.fullmatch, _numbers(header)))
            ):
                return None
            size, stamp, checksum = (int(number.strip(b" \0") or b"0", 8) for number in _numbers(header))
            if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
                return None
            place += BLOCK
            if kind != b"5":
                name = header[:100].partition(b"\0")[0]
                above = header[345:500].partition(b"\0")[0] if magic == b"ustar\0" else b""
                name = b"%b/%b" % (above, name) if above else name
                found.append(Found(name, place, size, stamp, _name_problem(name) or _size_problem(size)))
            place += -(-size // BLOCK) * BLOCK
    return None


def _numbers(header: bytes) -> tuple[bytes, bytes, bytes]:
    """Size, time of change, and checksum, in octal digits."""
    return header[124:136], header[136:148], header[148:156]


def any_members(path: Path) -> Iterator[Found]:
    """Those of any archive."""
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


KINDS: dict[str, Callable[[Path], Iterator[Found]]] = {"folder": _in_folder, "zip": _in_zip, "tar": _in_tar}


class _Builder:
    def __init__(self) -> None:
        self.names, self.ends, self.places, self.sizes = bytearray(), array("q"), array("q"), array("q")
        self.problems = array("b")
        self.folders: list[dict[tuple[int, bytes], int]] = [{} for _ in range(DEPTH)]
        self.levels = [array("i") for _ in range(DEPTH)]
        self.hash, self.others = hashlib.sha256(), 0

    def add(self, found: Found) -> None:
        if not is_picture(found.name) and found.problem != UNREADABLE:
            self.others += 1
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

    def listing(self) -> Listing:
        ends, places, sizes = (np.array(column, dtype=np.int64) for column in (self.ends, self.places, self.sizes))
        problems, (labels, class_names) = np.array(self.problems, dtype=np.int8), self._classes()
        names, digest = bytes(self.names), self.hash.hexdigest()
        return Listing(names, ends, places, sizes, problems, labels, class_names, digest, self.others)

    def _classes(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Of the first level with several folders, where no picture lies beside them."""
        known = ~np.isin(np.array(self.problems, dtype=np.int8), [PROBLEMS.index(UNREADABLE), PROBLEMS.index(OUTSIDE)])
        for ids, level in zip(self.folders, self.levels, strict=True):
            numbers = np.array(level, dtype=np.int64)
            if (numbers[known] < 0).any():
                break
            if len(ids) > 1:
                names = [shown(name) for (_, name) in ids]
                order = sorted(range(len(names)), key=names.__getitem__)
                ranks = np.empty(len(order), dtype=np.int64)
                ranks[order] = np.arange(len(order))
                return np.where(known, ranks[numbers], -1), tuple(names[index] for index in order)
        return np.full(len(self.ends), -1, dtype=np.int64), ()
