"""Download a file from the web or an object store, and check it."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import fsspec
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.files import file_checksum
from ddpm_kedro.ingestion.transferring import Show, finish, remove, transfer
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.progress import bars
from ddpm_kedro.provenance import is_redacted, redact, redact_text, url_key

logger = logging.getLogger(__name__)


def is_url(path: str) -> bool:
    """Return whether a path is a URL of the web, or of a file system that fsspec knows, such as s3://."""
    scheme, mark, _ = path.partition("://")
    return bool(mark) and scheme.lower() in fsspec.available_protocols()


def download(url: str, folder: Path, sha256: str | None, fits: Callable[[Path], bool] = lambda _: True) -> Path:
    """Download a file, unless it was downloaded before.

    If a connection breaks off, the bytes are kept in a file ``.part``, and the download resumes, in this run or a later
    one. The file gets its name when it is complete and checked. If several processes download the same file, one does,
    and the others wait.

    Args:
        url: URL of the file; its last part is the name of the downloaded file.
        folder: folder in which the file gets a folder of its own.
        sha256: expected checksum, in hexadecimal; None to log the checksum.
        fits: function that returns whether the content of a file is of the right kind.

    Raises:
        MissingSourceError: if it cannot be downloaded.
        UserError: if its checksum is not ``sha256``.
    """
    path, url_shown = folder / url_key(url) / _name(url), redact_text(url)
    if _is_kept(path, url_shown, sha256, fits):
        return path
    if is_redacted(url):
        raise MissingSourceError(
            f"dataset.path = {url} stands for a URL whose user, password or query were not stored, and {path} does "
            "not exist: give the whole URL again (--params dataset.path=…)."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path, "downloads"):
        if not _is_kept(path, url_shown, sha256, fits):
            _download(url, path, sha256, fits)
    return path


def _download(url: str, path: Path, sha256: str | None, fits: Callable[[Path], bool]) -> None:
    part, url_shown = path.with_name(f"{path.name}.part"), redact_text(url)
    with _bar(path.name) as show:
        transfer(url, part, show)
    try:
        if not fits(part):
            raise MissingSourceError(
                f"{url_shown} gave {_described(part)}, not a file of the kind that dataset.source reads. Check "
                "dataset.path: the link must work without logging in."
            )
        check(part, url_shown, sha256)
    except UserError:
        remove(part)
        raise
    finish(part, path)


def _is_kept(path: Path, url: str, sha256: str | None, fits: Callable[[Path], bool]) -> bool:
    """Return whether a file was downloaded before and is, as far as can be checked, the right one."""
    if not path.is_file():
        return False
    if not fits(path):
        logger.warning("%s is not a file of the kind that dataset.source reads: downloading it again.", path)
        return False
    try:
        check(path, url, sha256)
    except UserError:
        logger.warning("The cached %s does not have the checksum dataset.sha256: downloading it again.", path)
        return False
    if sha256 is None:
        logger.info("Using the cached %s of %s (delete it to download again).", path, url)
    return True


def _described(part: Path) -> str:
    with part.open("rb") as file:
        head = file.read(512).lstrip()
    return "a web page" if head.startswith(b"<") else f"{part.stat().st_size:,} bytes"


def _name(url: str) -> str:
    """Return the last part of a URL as a file name that cannot leave its folder."""
    _, _, address = redact(url).partition("://")
    last = PurePosixPath(unquote(re.split("[?#]", address)[0].partition("/")[2])).name
    return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "download"


def check(path: Path, name: str, sha256: str | None) -> None:
    """Compare the checksum of a file, or log it if none is expected; messages call the file ``name``.

    Raises:
        UserError: if the checksum is another one.
    """
    found = file_checksum(path)
    if sha256 is None:
        logger.warning("%s was not verified. To verify it next time, set dataset.sha256=%s", name, found)
    elif found != sha256.lower():
        raise UserError(f"{name} does not match dataset.sha256: its checksum is {found}, not {sha256}.")


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    """Show a progress bar on a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with bars(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)
