"""Transfer the bytes of a URL to a file: with retries, resuming, and a check of the disk space."""

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import Retry

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.ingestion.unpacking import LEFT_FREE
from ddpm_kedro.provenance import redact_text

logger = logging.getLogger(__name__)
TRIES, BACKOFF = 5, 1.0  # seconds before the second try, doubled before each later one
CONNECT, SILENCE = 10.0, 30.0  # seconds to wait for a connection, and for the next byte
SLOW, SLOW_FOR = 1024, 60.0  # bytes per second, and for how many seconds a connection may be slower
BLOCK = 2**20
WEB = {"http", "https"}
BUSY = (429, 500, 502, 503, 504)  # requested again; any other error of a server is final
ACCEPTED = {
    requests.codes.ok,
    requests.codes.partial_content,
    requests.codes.requested_range_not_satisfiable,
}
Show = Callable[[int, int | None], None]
"""Called with the number of bytes received, and of all bytes if known."""


class BrokenOffError(Exception):
    """The connection ended before the file did, or became too slow."""


def transfer(url: str, part: Path, show: Show) -> None:
    """Write the file at a URL to ``part``; resume an earlier transfer if the file has not changed.

    Raises:
        MissingSourceError: if it cannot be downloaded.
        UserError: if there is not enough disk space.
    """
    with _session() as session:
        resume = partial(_resume, session) if url.partition("://")[0].lower() in WEB else _resume_copy
        _retry(partial(resume, url, part, show), redact_text(url), part)


def remove(part: Path) -> None:
    """Remove a part, and the version beside it."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def finish(part: Path, path: Path) -> None:
    """Give a complete file its name."""
    part.replace(path)
    _version_file(part).unlink(missing_ok=True)


def _retry(resume: Callable[[], None], url: str, part: Path) -> None:
    for attempt in range(TRIES):
        try:
            resume()
        except BrokenOffError as error:
            if attempt == TRIES - 1:
                done = part.stat().st_size if part.is_file() else 0
                kept = f" {done:,} bytes are kept in {part}: run the same command again to resume." if done else ""
                raise MissingSourceError(f"{url} could not be downloaded in {TRIES} tries: {error}.{kept}") from None
            wait = BACKOFF * 2**attempt
            logger.warning("%s; trying again in %g s.", error, wait)
            time.sleep(wait)
        else:
            return


def _session() -> requests.Session:
    session = requests.Session()
    # Only busy servers are retried here; connections that fail are retried by _retry.
    retry = Retry(connect=0, read=0, status=TRIES, status_forcelist=BUSY, backoff_factor=BACKOFF)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.headers["Accept-Encoding"] = "identity"  # the response has as many bytes as the file
    return session


def _resume(session: requests.Session, url: str, part: Path, show: Show) -> None:
    """Read the rest of a file, or all of it if the server does not support ranges or has another version."""
    done, version_file = part.stat().st_size if part.is_file() else 0, _version_file(part)
    headers = {}
    if done and version_file.is_file():
        headers = {"Range": f"bytes={done}-", "If-Range": version_file.read_text()}
    with _response(session, url, headers) as response:
        content_range, version = response.headers.get("Content-Range", ""), _version(response.headers)
        none_left = response.status_code == requests.codes.requested_range_not_satisfiable
        if headers and none_left and content_range.endswith(f"*/{done}"):
            return
        partial_content = response.status_code == requests.codes.partial_content
        done = done if headers and partial_content else 0
        other = partial_content and not content_range.startswith(f"bytes {done}-")
        if other or none_left or (done and version not in {None, version_file.read_text()}):
            part.unlink(missing_ok=True)
            raise BrokenOffError("The file on the server has changed")
        if not done:
            version_file.write_text(version) if version else version_file.unlink(missing_ok=True)
        with part.open("ab" if done else "wb") as file:
            _save(_blocks(response), file, _size(response.headers, done), show, redact_text(url))


def _size(headers: Mapping[str, str], done: int) -> int | None:
    """Return the size of the whole file, if the headers contain it."""
    if total := re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", "")):
        return int(total[1])
    length = headers.get("Content-Length", "")
    return int(length) + done if length.isdecimal() and "Transfer-Encoding" not in headers else None


def _version(headers: Mapping[str, str]) -> str | None:
    """Return what identifies the version of a file; a weak tag does not identify its bytes."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


@contextmanager
def _response(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    shown = redact_text(url)
    try:  # the libraries' errors contain the whole URL: none is shown or kept as a cause
        response = session.get(url, headers=headers, stream=True, timeout=(CONNECT, SILENCE))
    except requests.TooManyRedirects as error:
        raise MissingSourceError(f"{shown} is redirected too often: {redact_text(str(error))}") from None
    except requests.exceptions.RetryError as error:
        message = f"{shown} could not be downloaded: the server only returns errors ({_reason(error)})."
        raise MissingSourceError(message) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise BrokenOffError(f"{shown} cannot be reached ({_reason(error)})") from None
    except (requests.RequestException, ValueError) as error:  # the error may come from a redirection
        reason = redact_text(str(error))
        raise MissingSourceError(f"{shown}, or its redirection, cannot be requested: {reason}") from None
    with response:
        if response.status_code not in ACCEPTED:
            status = f"{response.status_code} {response.reason}"
            raise MissingSourceError(f"{shown} was not found: the server returns {status}. Check dataset.path.")
        yield response


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the bytes as they arrive; a connection that is too slow counts as broken."""
    start, received = time.monotonic(), 0
    try:
        while block := response.raw.read1(BLOCK):
            yield block
            received += len(block)
            seconds = time.monotonic() - start
            if seconds > SLOW_FOR:
                if received < SLOW * seconds:
                    raise BrokenOffError(f"Only {received / seconds:,.0f} bytes per second were received")
                start, received = time.monotonic(), 0
    except ReadTimeoutError as error:
        raise BrokenOffError(f"Nothing was received for {SILENCE:g} s") from error
    except (ProtocolError, HTTPError, OSError) as error:
        raise BrokenOffError("The connection broke off") from error


def _resume_copy(url: str, part: Path, show: Show) -> None:
    """Read the rest of a file that is not on the web, or all of it if it has changed."""
    version_file = _version_file(part)
    with _source_errors(url):
        files, name = fsspec.url_to_fs(url)
        version, size = str(files.ukey(name)), files.size(name)
        source = files.open(name, "rb")
    if not version_file.is_file() or version_file.read_text() != version:
        part.unlink(missing_ok=True)
        version_file.write_text(version)
    with source, part.open("ab") as file:
        _save(_blocks_of(source, file.tell(), url), file, size, show, redact_text(url))


def _blocks_of(source: Any, position: int, url: str) -> Iterator[bytes]:
    while True:
        with _source_errors(url):
            source.seek(position)
            block: bytes = source.read(BLOCK)
        if not block:
            return
        yield block
        position += len(block)


@contextmanager
def _source_errors(url: str) -> Iterator[None]:
    """Raise errors of a remote file system as errors of this module; not for errors of writing."""
    url = redact_text(url)
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise MissingSourceError(f"{url} cannot be read ({type(error).__name__}). Check dataset.path.") from None
    except OSError as error:
        raise BrokenOffError(f"The connection broke off ({redact_text(str(error))})") from None
    except Exception as error:  # each library has its own errors, such as for missing credentials
        raise MissingSourceError(f"{url} cannot be read here: {redact_text(str(error))}") from None


def _save(blocks: Iterator[bytes], file: BinaryIO, size: int | None, show: Show, url: str) -> None:
    """Write the blocks, as long as there is disk space for the rest."""
    part = Path(file.name)
    for block in blocks:
        rest = len(block) if size is None else size - file.tell()
        if shutil.disk_usage(part.parent).free < LEFT_FREE + rest:
            count = f"{size:,} bytes" if size is not None else f"more than {file.tell():,} bytes"
            if size is None:  # it may be endless
                remove(part)
            raise UserError(
                f"{url} has {count}, and the disk of {part.parent} is too full: choose another folder with "
                "dataset.download_folder."
            )
        file.write(block)
        show(file.tell(), size)
    if size is not None and file.tell() != size:
        raise BrokenOffError(f"The connection ended after {file.tell():,} of {size:,} bytes")


def _version_file(part: Path) -> Path:
    """Return the path of the version of a part, beside it."""
    return part.with_name(f"{part.name}.version")


def _reason(error: Exception) -> str:
    """Return the innermost of a chain of errors, in short."""
    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return redact_text(re.sub(r"^.*?: ", "", str(cause).split("\n")[0]))
