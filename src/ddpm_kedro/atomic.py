"""Write files and folders atomically: neither a reader nor a crash ever sees a half-written one."""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from ddpm_kedro.errors import causes

TEMPORARY, FOLDER = ".writing", ".folder"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # constants of Linux


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` if the block succeeds, and is removed otherwise."""
    path = path.resolve()  # a link stays a link; its target is replaced
    with _names(path), _temporary_file(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces ``path`` if the block succeeds.

    It has the same name as ``path``. Its files get the modes of the umask. If the block writes nothing, ``path`` is
    removed.
    """
    path = path.resolve()
    with _names(path), _temporary_file(path) as file:
        folder = Path(f"{file.name}{FOLDER}")
        try:
            folder.mkdir()
            yield folder / path.name
            for each in folder.rglob("*"):
                if each.is_file():
                    each.chmod(folder.stat().st_mode & 0o666)  # some libraries write files for their owner only
                    with each.open("rb") as written:
                        os.fsync(written.fileno())
            take_place(folder / path.name, path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces ``path`` if the block succeeds."""
    with replaced(path) as new:
        new.mkdir()
        yield new


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder atomically, with its modification time."""
    if source.is_dir():
        with replaced_folder(target) as new:
            for each in sorted(source.iterdir()):
                copy(each, new / each.name)
        return
    with source.open("rb") as original, atomic_write(target) as file:
        shutil.copyfileobj(original, file)
        file.flush()
        times = os.fstat(original.fileno())
        os.utime(file.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))


def move(source: Path, target: Path) -> None:
    """Move a file; if the target is on another disk, copy it atomically, then remove the source."""
    source = source.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy(source, target)
        source.unlink()


@contextmanager
def _temporary_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``, and remove it at the end if it was not renamed.

    The file is locked while it is written. The lock ends with its process: a file without a lock is a leftover.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    file = _open_locked(path)
    try:
        yield file
    finally:
        Path(file.name).unlink(missing_ok=True)
        with suppress(OSError):  # closing fails again on a full disk
            file.close()


def _open_locked(path: Path) -> BinaryIO:
    while True:
        file = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}").open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()  # another process takes it for a leftover, and removes it
            continue
        except OSError:
            return file  # without file locks, no process removes the files of others
        if Path(file.name).exists():
            return file
        file.close()


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove the leftovers of dead writers in a folder, once per process."""
    for left in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writer lives
            left.unlink()
    for left in folder.glob(f".*{TEMPORARY}{FOLDER}"):
        if not left.with_suffix("").exists():
            shutil.rmtree(left, ignore_errors=True)


def take_place(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; the earlier content is then at ``new``, or at ``new.earlier``."""
    earlier = new.with_name(f"{new.name}.earlier")
    if not new.exists():
        if path.exists():
            os.replace(path, earlier)
        return
    try:
        if new.is_file() or not path.exists():
            os.replace(new, path)
            return
    except IsADirectoryError:
        pass  # a file replaces a folder
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange and exchange(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        return
    os.replace(path, earlier)
    os.replace(new, path)


@contextmanager
def _names(path: Path) -> Iterator[None]:
    """Let errors name ``path``, not the temporary file beside it."""
    try:
        yield
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, OSError) and cause.errno and TEMPORARY in str(cause.filename or TEMPORARY):
                cause.filename = str(path)
                del cause.filename2
        raise


def _sync_folder(folder: Path) -> None:
    """Write the new name to the disk, so that it survives a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
