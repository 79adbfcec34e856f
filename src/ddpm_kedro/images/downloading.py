"""A file from the web or a store of objects: tried again, gone on with where it broke off, and checked before use."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import fsspec
import requests
from requests.adapters import HTTPAdapter
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import Retry

from ddpm_kedro.images.progress import bars
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import fingerprint

logger = logging.getLogger(__name__)
TRIES, BACKOFF = 5, 1.0  # seconds before the second try, twice as many before each that follows
CONNECT, SILENCE = 10.0, 30.0  # seconds to wait for a connection, and for the next byte
SLOW, SLOW_FOR = 1024, 60.0  # bytes a second, and for how many seconds fewer may come
BLOCK = 2**20
WEB = {"http", "https"}
BUSY = (429, 500, 502, 503, 504)  # asked again; any other error of a server is an answer


class BrokenOffError(Exception):
    """A connection that ended, or may as well have ended, before the file did."""


def is_url(path: str) -> bool:
    """Whether a path is one of the web, or of a file system that fsspec knows, such as s3://."""
    return "://" in path and urlsplit(path).scheme in fsspec.available_protocols()


def download(url: str, folder: Path, sha256: str | None) -> Path:
    """Bring a file to ``folder``, unless it is there.

    What came of it before a connection broke off lies in a file ``.part`` and is gone on with, now or in another run.
    Under its own name the file stands only when all of it is there and is what it should be.

    Args:
        url: where it lies.
        folder: below which it comes to lie, in a folder of its own, under the last part of the URL.
        sha256: of its content, in hexadecimal; None where nobody knows, and then it is told.

    Raises:
        UserError: where it cannot be had, or is another file.
    """
    path = folder / fingerprint(url) / _name(url)
    if path.is_file() and _is_kept(path, url, sha256):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _session() as session, _bar(path.name) as show:
        go_on = partial(_go_on, session) if urlsplit(url).scheme in WEB else _copy
        _in_some_tries(partial(go_on, url, part, show), url, part)
    try:
        check(part, url, sha256)
    except UserError:
        _validator(part).unlink(missing_ok=True)
        part.unlink()
        raise
    part.replace(path)
    _validator(part).unlink(missing_ok=True)
    return path


def _is_kept(path: Path, url: str, sha256: str | None) -> bool:
    """Whether a file that was brought before is still the right one, as far as anybody knows."""
    try:
        check(path, url, sha256)
    except UserError:
        logger.warning("%s, brought before, is not what dataset.sha256 names: it is brought again.", path)
        return False
    if sha256 is None:
        logger.info("%s was brought before; it is not asked for again while %s is there.", url, path)
    return True


def _in_some_tries(go_on: Callable[[], None], url: str, part: Path) -> None:
    for attempt in range(TRIES):
        try:
            go_on()
        except BrokenOffError as error:
            if attempt == TRIES - 1:
                have = part.stat().st_size if part.is_file() else 0
                kept = f" {have:,} bytes are kept in {part}, and the same command goes on from there." if have else ""
                raise UserError(f"{url} could not be downloaded in {TRIES} tries: {error}.{kept}") from error
            wait = BACKOFF * 2**attempt
            logger.warning("%s; trying again in %g s.", error, wait)
            time.sleep(wait)
        else:
            return


def _name(url: str) -> str:
    """A name for the file that leads nowhere else."""
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "download"


def _session() -> requests.Session:
    session = requests.Session()
    # Connections that fail are tried again by download; a server that is busy, here.
    retry = Retry(connect=0, read=0, status=TRIES, status_forcelist=BUSY, backoff_factor=BACKOFF)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.headers["Accept-Encoding"] = "identity"  # so many bytes of the file as of the answer
    return session


def _go_on(session: requests.Session, url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """Read the rest of a file, or all of it where a server gives no rests or has another file by now."""
    have, validator = part.stat().st_size if part.is_file() else 0, _validator(part)
    headers = {}
    if have and validator.is_file():
        headers = {"Range": f"bytes={have}-", "If-Range": validator.read_text()}
    with _answer(session, url, headers) as answer:
        given, version = answer.headers.get("Content-Range", ""), _version(answer.headers)
        if answer.status_code == requests.codes.requested_range_not_satisfiable and given.endswith(f"*/{have}"):
            return  # nothing is left
        goes_on = answer.status_code == requests.codes.partial_content
        other = goes_on and not (given.startswith(f"bytes {have}-") and version in {None, validator.read_text()})
        if other or answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            raise BrokenOffError("The server has another version of the file by now")
        have = have if goes_on else 0
        size = int(answer.headers["Content-Length"]) + have if "Content-Length" in answer.headers else None
        if not goes_on:
            validator.write_text(version) if version else validator.unlink(missing_ok=True)
        with part.open("ab" if goes_on else "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                show(file.tell(), size)
            if size is not None and file.tell() < size:
                raise BrokenOffError(f"The connection ended after {file.tell():,} of {size:,} bytes")


def _version(headers: Mapping[str, str]) -> str | None:
    """What tells one version of a file from another to the byte, which a weak tag does not."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _copy(url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """Read the rest of a file that is not on the web, or all of it where it is another one by now."""
    validator = _validator(part)
    with _source_errors(url):
        files, name = fsspec.url_to_fs(url)
        version, size = str(files.ukey(name)), files.size(name)
        source = files.open(name, "rb")
    if not validator.is_file() or validator.read_text() != version:
        part.unlink(missing_ok=True)
        validator.write_text(version)
    with source, part.open("ab") as file:
        while True:
            with _source_errors(url):
                source.seek(file.tell())
                block = source.read(BLOCK)
            if not block:
                break
            file.write(block)
            show(file.tell(), size)
        if size is not None and file.tell() != size:
            raise BrokenOffError(f"The connection ended after {file.tell():,} of {size:,} bytes")


@contextmanager
def _source_errors(url: str) -> Iterator[None]:
    """What a file system says, in words of our own; writing is not its business."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{url} cannot be read ({type(error).__name__}). Check dataset.path.") from error
    except OSError as error:
        raise BrokenOffError(f"The connection broke off ({error})") from error
    except Exception as error:  # each has a library of its own, that asks for credentials in its own way
        raise UserError(f"{url} cannot be read here: {error}") from error


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    try:
        with session.get(url, headers=headers, stream=True, timeout=(CONNECT, SILENCE)) as answer:
            if answer.status_code != requests.codes.requested_range_not_satisfiable:
                answer.raise_for_status()
            yield answer
    except requests.TooManyRedirects as error:
        raise UserError(f"{url} is redirected again and again: {error}") from error
    except requests.HTTPError as error:
        status = f"{error.response.status_code} {error.response.reason}"
        raise UserError(f"{url} is not there: the server says {status}. Check dataset.path.") from error
    except requests.exceptions.RetryError as error:
        raise UserError(f"{url} could not be downloaded: the server answers with errors only ({error}).") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise BrokenOffError(f"{urlsplit(url).netloc} cannot be reached ({_reason(error)})") from error
    except requests.RequestException as error:
        raise UserError(f"{url} cannot be asked for: {error}") from error


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes; a trickle counts as a connection that ended."""
    start, seen = time.monotonic(), 0
    try:
        while block := answer.raw.read1(BLOCK):
            yield block
            seen += len(block)
            gone = time.monotonic() - start
            if gone > SLOW_FOR:
                if seen < SLOW * gone:
                    raise BrokenOffError(f"Only {seen / gone:,.0f} bytes a second came")
                start, seen = time.monotonic(), 0
    except ReadTimeoutError as error:
        raise BrokenOffError(f"Nothing came for {SILENCE:g} s") from error
    except (ProtocolError, HTTPError, OSError) as error:
        raise BrokenOffError("The connection broke off") from error


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


def _validator(part: Path) -> Path:
    """Beside a part: what its server calls this version of the file."""
    return part.with_name(f"{part.name}.version")


def _reason(error: Exception) -> str:
    """The innermost of a chain of errors, in short."""
    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return re.sub(r"^.*?: ", "", str(cause).split("\n")[0])


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, nothing elsewhere."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with bars(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda have, size: bar.update(task, completed=have, total=size)
