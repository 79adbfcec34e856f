"""A compressed .tar, which can be read from its beginning alone, becomes one that can be read anywhere."""

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

from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import fingerprint

logger = logging.getLogger(__name__)
BLOCK = 2**20
LEFT_FREE = 2**30  # bytes of the disk that stay free: a small file may unpack to more than any disk has
Opener = Callable[[Path], BufferedIOBase]
OPENERS: dict[bytes, Opener] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}
"""What unpacks a file, by its first bytes."""


def unpack(path: Path, folder: Path) -> Path:
    """The file itself where it is not compressed, else what it holds, in ``folder``, unpacked once.

    Raises:
        UserError: where it is damaged, or the disk too small.
    """
    opener = opener_of(path)
    if opener is None:
        return path
    status = path.stat()
    made = folder / f"{path.name.split('.')[0]}-{fingerprint(str(path), status.st_size, status.st_mtime_ns)}.tar"
    if made.is_file():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with alone(made, "unpacks"):
        if made.is_file():
            return made
        part = made.with_suffix(".part")
        logger.info("%s is unpacked to %s.", path, made)
        try:
            _decompress(opener, path, part)
        except UserError:
            part.unlink(missing_ok=True)
            raise
        part.replace(made)
    return made


@contextmanager
def alone(path: Path, verb: str) -> Iterator[None]:
    """Let one process at a time make a file or folder; the others wait.

    Args:
        path: of what is made.
        verb: what the others wait for.
    """
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
    """What unpacks a file; None where it is not compressed."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)


def _decompress(opener: Opener, path: Path, part: Path) -> None:
    try:
        with opener(path) as packed, part.open("wb") as file:
            while block := packed.read(BLOCK):
                if shutil.disk_usage(part.parent).free < LEFT_FREE + len(block):
                    raise UserError(
                        f"{path} holds more than {file.tell():,} bytes, and {part.parent} has no room for more: "
                        "dataset.download_folder names another folder."
                    )
                file.write(block)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from error
