"""A file from the web or a store of objects: kept under a name of its own, once it is checked."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import fsspec
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.ingestion.transferring import Show, finish, remove, transfer
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.progress import bars
from ddpm_kedro.provenance import is_redacted, redact, redact_text, url_key

logger = logging.getLogger(__name__)


def is_url(path: str) -> bool:
    """Whether a path is one of the web, or of a file system that fsspec knows, such as s3://."""
    scheme, mark, _ = path.partition("://")
    return bool(mark) and scheme.lower() in fsspec.available_protocols()


def download(url: str, folder: Path, sha256: str | None, fits: Callable[[Path], bool] = lambda _: True) -> Path:
    """Bring a file to ``folder``, unless it is there.

    What came of it before a connection broke off lies in a file ``.part`` and is gone on with, now or in another run.
    Under its own name the file stands only when all of it is there and is what it should be. Of several processes that
    want the same file, one downloads it and the others wait.

    Args:
        url: where it lies.
        folder: below which it comes to lie, in a folder of its own, under the last part of the URL.
        sha256: of its content, in hexadecimal; None where nobody knows, and then it is told.
        fits: whether a file is of the kind that is wanted, by its content.

    Raises:
        MissingSourceError: where it cannot be had.
        UserError: where it is another file than ``sha256`` says.
    """
    path, url_shown = folder / url_key(url) / _name(url), redact_text(url)
    if _is_kept(path, url_shown, sha256, fits):
        return path
    if is_redacted(url):
        raise MissingSourceError(
            f"dataset.path = {url} stands for a URL whose user, password or query were not stored, and {path} is not "
            "there: give the whole URL again (--params dataset.path=…)."
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
                "dataset.path: where a browser has to log in first, it must be a link that works without."
            )
        check(part, url_shown, sha256)
    except UserError:
        remove(part)
        raise
    finish(part, path)


def _is_kept(path: Path, url: str, sha256: str | None, fits: Callable[[Path], bool]) -> bool:
    """Return whether a file was downloaded before and is, as far as can be known, still the right one."""
    if not path.is_file():
        return False
    if not fits(path):
        logger.warning("%s is not of the kind that dataset.source reads: it is downloaded again.", path)
        return False
    try:
        check(path, url, sha256)
    except UserError:
        logger.warning("%s, brought before, is not what dataset.sha256 names: it is brought again.", path)
        return False
    if sha256 is None:
        logger.info("%s was brought before; it is not asked for again while %s is there.", url, path)
    return True


def _described(part: Path) -> str:
    with part.open("rb") as file:
        head = file.read(512).lstrip()
    return "a web page" if head.startswith(b"<") else f"{part.stat().st_size:,} bytes"


def _name(url: str) -> str:
    """A name for the file that leads nowhere else."""
    _, _, address = redact(url).partition("://")
    last = PurePosixPath(unquote(re.split("[?#]", address)[0].partition("/")[2])).name
    return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "download"


def check(path: Path, name: str, sha256: str | None) -> None:
    """Whether it is the right file.

    Raises:
        UserError: where it is another one.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is None:
        logger.warning("Nothing says what %s should be. So that it is checked: dataset.sha256=%s", name, found)
    elif found != sha256.lower():
        raise UserError(f"{name} is not the file that dataset.sha256 names: its checksum is {found}, not {sha256}.")


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    """A bar on a terminal, nothing elsewhere."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with bars(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda have, size: bar.update(task, completed=have, total=size)
