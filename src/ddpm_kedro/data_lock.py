"""Allow one writer per data folder: a lock of the operating system, and a record of its holder."""

import errno
import fcntl
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.errors import UserError
from ddpm_kedro.hooks.distributed import is_rank_0

logger = logging.getLogger(__name__)
LOCK, RECORD = ".lock", ".lock.json"
WAIT = "DDPM_KEDRO_WAIT"
"""Environment variable: seconds to wait for a data folder that is in use."""
POLL, RENEW, FRESH = 0.2, 10.0, 60.0  # seconds: between attempts, between renewals, until a record is stale
CONTENDED = {errno.EACCES, errno.EAGAIN}
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
BOOT, MOUNTS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/mountinfo")
LOCAL = {"nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflock"}
"""Mount options of NFS, CIFS and Lustre that hide locks from other hosts."""
_holders: dict[Path, int] = {}


@contextmanager
def hold_data_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder while the block runs.

    The lock is reentrant in a thread. Under torchrun only rank 0 takes it. The operating system frees it when the
    process ends, and child processes do not inherit it.

    Raises:
        UserError: if the folder cannot be written, or if another process holds the lock for longer than ``WAIT``.
    """
    folder = folder.resolve()
    if not is_rank_0() or _holders.get(folder) == get_ident():
        yield
        return
    if _holders.setdefault(folder, get_ident()) != get_ident():  # opening the lock file again would unlock it
        raise UserError(f"The data folder {folder} is in use by another thread of this process.")
    try:
        with _explain_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _acquire(folder, handle)
            with _recorded(folder):
                yield
        finally:
            os.close(handle)  # also unlocks it
    finally:
        del _holders[folder]


def _acquire(folder: Path, handle: int) -> None:
    """Wait for the lock as long as ``WAIT`` says."""
    seconds = _seconds_to_wait()
    deadline = time.monotonic() + seconds
    waiting = False
    while not _try(folder, handle):
        holder = _name_holder(folder)
        if time.monotonic() >= deadline:
            raise UserError(
                f"The data folder {folder} is in use by {holder}. Wait until it has ended ({WAIT}=600 waits up to "
                '600 seconds), or give this run its own folder: docs/configuration.md, "Two runs at once".'
            )
        if not waiting:
            logger.info("Waiting up to %.0f s for the data folder %s, in use by %s.", seconds, folder, holder)
            waiting = True
        time.sleep(POLL)


def _try(folder: Path, handle: int) -> bool:
    """Take the lock, unless another process holds it, or a fresh record of another host exists."""
    try:
        # A lock of the process (fcntl), not of the open file (flock): a forked worker does not keep it alive.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in CONTENDED:
            return False
        if error.errno not in UNSUPPORTED:
            raise
        reason, here = error.strerror, False
    else:
        reason, here = _local_lock(folder), _read_record(folder).get("boot") == _boot()
    if not here and _is_fresh(folder, handle):
        with suppress(OSError):
            fcntl.lockf(handle, fcntl.LOCK_UN)
        return False
    if reason:
        logger.warning(
            "The file system of %s does not lock files for all hosts (%s): start one run at a time in it.",
            folder,
            reason,
        )
    return True


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """Record the holder of the lock while the block runs, and renew the record."""
    record, released = folder / RECORD, Event()
    with _explain_errors(folder):
        write_text(record, json.dumps(_describe_process(), indent=2))
    Thread(target=_renew, args=(record, released), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        with suppress(OSError):
            record.unlink()


def _is_fresh(folder: Path, handle: int) -> bool:
    """Return whether a holder renewed its record recently, by the clock of the file system."""
    try:
        renewed = (folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return False
    os.utime(handle)
    return os.fstat(handle).st_mtime - renewed < FRESH


def _renew(record: Path, released: Event) -> None:
    while not released.wait(RENEW):
        with suppress(OSError):
            os.utime(record)


def _describe_process() -> dict[str, Any]:
    """Describe this process for other processes, without the values of arguments: they may contain passwords."""
    program, *arguments = sys.argv
    words = [word.partition("=")[0] + ("=…" if "=" in word else "") for word in arguments]
    return {
        "host": platform.node(),
        "boot": _boot(),
        "process": os.getpid(),
        "command": " ".join([Path(program).name, *words]),
        "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
    }


def _name_holder(folder: Path) -> str:
    """Return a description of the holder, for a message."""
    for _ in range(5):  # the holder writes its record shortly after it takes the lock
        if record := _read_record(folder):
            return "process {process} on {host} since {since} ({command})".format_map(record)
        time.sleep(POLL)
    return "another process"


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    complete = isinstance(record, dict) and {"host", "boot", "process", "command", "since"} <= record.keys()
    return record if complete else {}


def _boot() -> str:
    """Return an identifier of this host since its last boot."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return platform.node()


def _local_lock(folder: Path) -> str | None:
    """Return the mount option that hides locks from other hosts, if there is one."""
    device = folder.stat().st_dev
    place = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for mount in (line.split() for line in MOUNTS.read_text().splitlines()):
            if mount[2] == place and (options := LOCAL.intersection(mount[-1].split(","))):
                return options.pop()
    return None


def _seconds_to_wait() -> float:
    text = os.environ.get(WAIT, "0")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise UserError(f"{WAIT}={text} is not a number: give the seconds to wait, such as {WAIT}=600.") from None


@contextmanager
def _explain_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The data folder {folder} cannot be written: {error.strerror}.{_whose(folder, error)} "
            "Earlier outputs are unchanged."
        ) from error


def _whose(folder: Path, error: OSError) -> str:
    """Explain who owns a folder of another user, and what to do."""
    if not isinstance(error, PermissionError) or not hasattr(os, "geteuid") or not folder.is_dir():
        return ""
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        return ""
    return (
        f" It belongs to user {owner}, and this is user {os.geteuid()}: chown it, or start the "
        'container with --user "$(id -u):$(id -g)".'
    )
