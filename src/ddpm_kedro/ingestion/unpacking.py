"""Unpack a compressed .tar, so that its members can be read in any order."""

import bz2
import gzip
import logging
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from filelock import FileLock, Timeout

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import fingerprint

logger = logging.getLogger(__name__)
BLOCK = 2**20
LEFT_FREE = 2**30  # bytes of the disk that stay free: a small file may unpack to more than fits on any disk
Opener = Callable[[Path], BufferedIOBase]
OPENERS: dict[bytes, Opener] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}
"""Classes that decompress a file, by its first bytes."""


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a file into ``folder`` unless that was done before; return the path of the archive.

    A file that is not compressed is returned as it is.

    Raises:
        UserError: if it is damaged, or the disk is too full.
    """
    opener = opener_of(path)
    if opener is None:
        return path
    status = path.stat()
    unpacked = folder / f"{path.name.split('.')[0]}-{fingerprint(str(path), status.st_size, status.st_mtime_ns)}.tar"
    if unpacked.is_file():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    with alone(unpacked, "unpacks"):
        if not unpacked.is_file():
            logger.info("Unpacking %s to %s.", path, unpacked)
            _decompress(opener, path, unpacked)
    return unpacked


@contextmanager
def alone(path: Path, verb: str) -> Iterator[None]:
    """Let one process at a time write a file or folder; the others log that another one ``verb`` it, and wait."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process %s %s: waiting for it.", verb, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def opener_of(path: Path) -> Opener | None:
    """Return the class that decompresses a file; None if it is not compressed."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)


def _decompress(opener: Opener, path: Path, unpacked: Path) -> None:
    try:
        with opener(path) as packed, atomic_write(unpacked) as file:
            while block := packed.read(BLOCK):
                if shutil.disk_usage(unpacked.parent).free < LEFT_FREE + len(block):
                    raise UserError(
                        f"{path} unpacks to more than {file.tell():,} bytes, and the disk of {unpacked.parent} is too "
                        "full: choose another folder with dataset.download_folder."
                    )
                file.write(block)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from error
