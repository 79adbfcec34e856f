"""Folders, .zip and .tar archives: walk through them, and read a file of them."""

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ddpm_kedro.errors import MissingSourceError, UserError

MAX_BYTES = 2**28
# These texts are part of the digest of a listing: another text makes all images again.
LINK_OUT, LINK_TO_FOLDER, OUTSIDE = "it is a link out of the folder", "it is a link to a folder", "its name leads out"
LINK_TO_NOWHERE = "it is a link to nothing"
SPECIAL, ENCRYPTED, HUGE = "it is no regular file", "it is encrypted", f"it has more than {MAX_BYTES:,} bytes"
UNREADABLE, FORBIDDEN = "the folder cannot be read", "it may not be read"
LINK_TWICE = "it is a link to a folder that is listed elsewhere, or to one above"
PROBLEMS = ("", LINK_OUT, LINK_TO_FOLDER, OUTSIDE, SPECIAL, ENCRYPTED, HUGE, UNREADABLE, FORBIDDEN, LINK_TO_NOWHERE,
            LINK_TWICE)  # fmt: skip
HINTS = {LINK_OUT: "dataset.follow_links=true follows links out of the folder."}


class FileEntry(NamedTuple):
    """A file that may be an image.

    Attributes:
        name: path relative to the top, as the file system or the archive has it.
        place: position of the file in an archive: an offset, or a number.
        size: size in bytes.
        stamp: time of the last change, or a checksum.
        problem: reason why the file is not read, one of PROBLEMS; empty if it is read.
    """

    name: bytes
    place: int
    size: int
    stamp: int
    problem: str = ""


def walk(path: Path, *, follow_links: bool = False) -> Iterator[FileEntry]:
    """Yield all files of a folder, or of a .zip or .tar archive, images or not."""
    if not path.exists():
        raise MissingSourceError(f"dataset.path = {path} does not exist.")
    if (kind := kind_of(path)) not in WALKS:
        raise UserError(f"dataset.path = {path} is neither a folder nor a complete .zip or .tar archive.")
    return _walk_folder(path, follow_links=True) if follow_links and kind == "folder" else WALKS[kind](path)


def kind_of(path: Path) -> str:
    """Return folder, zip or tar, by content; empty for anything else."""
    if path.is_dir():
        return "folder"
    if zipfile.is_zipfile(path):
        return "zip"
    try:
        with tarfile.open(path, "r:"):
            return "tar"
    except Exception:
        return ""


def hints(problems: Iterable[str]) -> str:
    """Return hints that solve these problems, as the end of a message."""
    return "".join(f" {HINTS[problem]}" for problem in dict.fromkeys(problems) if problem in HINTS)


def _walk_folder(top: Path, follow_links: bool) -> Iterator[FileEntry]:
    """Yield the files folder by folder, in the order of the bytes of their names."""
    base, links = os.fsencode(top), _Links(os.path.realpath(os.fsencode(top)), follow_links)
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(base, below)) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            if not below:
                raise UserError(f"No permission to read the folder dataset.path = {top}.") from error
            yield FileEntry(below, 0, 0, 0, UNREADABLE)
            continue
        folders = list[bytes]()
        for entry in inside:
            name, hidden = os.path.join(below, entry.name), entry.name.startswith(b".")
            problem = "" if hidden or not entry.is_symlink() else links.problem(entry)
            if entry.is_dir(follow_symlinks=not problem):
                folders += [] if hidden else [name]
            else:
                yield FileEntry(name, 0, 0, 0, problem) if problem else _file_entry(entry, name)
        waiting += reversed(folders)


class _Links:
    """Links of a folder: to files in it they are followed, to others only if asked for, and to each folder once."""

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


def _file_entry(entry: "os.DirEntry[bytes]", name: bytes) -> FileEntry:
    try:
        status = entry.stat()
    except OSError:
        return FileEntry(name, 0, 0, 0, LINK_TO_NOWHERE)
    problem = "" if stat.S_ISREG(status.st_mode) else SPECIAL
    if not problem and not os.access(entry.path, os.R_OK):  # a permission added later changes the digest
        problem = FORBIDDEN
    return FileEntry(name, 0, status.st_size, status.st_mtime_ns, problem or _size_problem(status.st_size))


def _walk_zip(path: Path) -> Iterator[FileEntry]:
    with _archive_errors(path), zipfile.ZipFile(path) as archive:
        for number, member in enumerate(archive.infolist()):
            if member.is_dir():
                continue
            name = member.filename.encode("utf-8", "surrogateescape")
            mode = member.external_attr >> 16
            special = stat.S_IFMT(mode) not in {0, stat.S_IFREG}
            problem = SPECIAL if special else ENCRYPTED if member.flag_bits & 1 else _size_problem(member.file_size)
            yield FileEntry(name, number, member.file_size, member.CRC, _name_problem(name) or problem)


def _walk_tar(path: Path) -> Iterator[FileEntry]:
    with _archive_errors(path), tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all members
            if member.isdir():
                continue
            name = member.name.encode("utf-8", "surrogateescape")
            problem = SPECIAL if not member.isreg() or member.issparse() else _size_problem(member.size)
            yield FileEntry(name, member.offset_data, member.size, int(member.mtime), _name_problem(name) or problem)


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Raise errors of reading an archive as a UserError that names it."""
    try:
        yield
    except Exception as error:  # the readers of archives raise many kinds: an empty name is an IndexError of zipfile
        raise UserError(f"The archive dataset.path = {path} is damaged: {error}") from error


def _name_problem(name: bytes) -> str:
    path = PurePosixPath(os.fsdecode(name).replace("\\", "/"))
    return OUTSIDE if path.is_absolute() or ".." in path.parts else ""


def _size_problem(size: int) -> str:
    return HUGE if size > MAX_BYTES else ""


WALKS: dict[str, Callable[[Path], Iterator[FileEntry]]] = {
    "folder": partial(_walk_folder, follow_links=False),
    "zip": _walk_zip,
    "tar": _walk_tar,
}


class FolderReader:
    """Reads files of a folder by name, at most ``size`` bytes."""

    def __init__(self, path: Path) -> None:
        self.top = os.fsencode(path)

    def read(self, name: bytes, place: int, size: int) -> bytes:  # noqa: D102
        with open(os.path.join(self.top, name), "rb") as file:
            return file.read(size)


class ZipReader:
    """Reads members by number: two may have the same name."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.members = self.archive.infolist()

    def read(self, name: bytes, place: int, size: int) -> bytes:  # noqa: D102
        with self.archive.open(self.members[place]) as file:
            return file.read(size)


class TarReader:
    """Reads members by offset: nothing before them is read."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")

    def read(self, name: bytes, place: int, size: int) -> bytes:  # noqa: D102
        self.file.seek(place)
        return self.file.read(size)


Reader = FolderReader | ZipReader | TarReader
READERS: dict[str, type[Reader]] = {"folder": FolderReader, "zip": ZipReader, "tar": TarReader}


def open_reader(path: Path) -> Reader:
    """Return a reader of a folder or an archive; it is cached until the archive changes."""
    status = path.stat()
    return _open_reader(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _open_reader(path: Path, *_: int) -> Reader:
    return READERS[kind_of(path)](path)
