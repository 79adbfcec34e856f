"""Read the files of a listing."""

import errno
import os
import zipfile
from functools import lru_cache
from pathlib import Path

from ddpm_kedro.ingestion.collection import RejectedImageError
from ddpm_kedro.ingestion.file_walk import PROBLEMS, kind_of
from ddpm_kedro.ingestion.listing import PLACE, PROBLEM, SIZE, Listing

MACHINE_ERRORS = {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the machine, not of a file: they end the run, and the next run resumes."""


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
    except OSError as error:
        if error.errno in MACHINE_ERRORS:
            raise
        raise RejectedImageError("it cannot be read") from error
    except MemoryError:
        raise
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
        raise RejectedImageError("it cannot be read") from error
    except Exception as error:  # zlib, lzma and bz2 have errors of their own
        raise RejectedImageError("it cannot be unpacked") from error
    if len(data) < size:
        raise RejectedImageError("it is cut short")
    return data
