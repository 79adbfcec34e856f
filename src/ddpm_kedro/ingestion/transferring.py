"""Bytes of a URL to a file: tried again, gone on with where they broke off, never more than the disk has room for."""

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
TRIES, BACKOFF = 5, 1.0  # seconds before the second try, twice as many before each that follows
CONNECT, SILENCE = 10.0, 30.0  # seconds to wait for a connection, and for the next byte
SLOW, SLOW_FOR = 1024, 60.0  # bytes a second, and for how many seconds fewer may come
BLOCK = 2**20
WEB = {"http", "https"}
BUSY = (429, 500, 502, 503, 504)  # asked again; any other error of a server is an answer
ANSWERED = {
    requests.codes.ok,
    requests.codes.partial_content,
    requests.codes.requested_range_not_satisfiable,
}
Show = Callable[[int, int | None], None]
"""Is told how many bytes have come, and of how many."""


class BrokenOffError(Exception):
    """A connection that ended, or may as well have ended, before the file did."""


def transfer(url: str, part: Path, show: Show) -> None:
    """Write what lies at a URL to a file, from where an earlier transfer broke off if it is still the same.

    Raises:
        MissingSourceError: where it cannot be had.
        UserError: where the disk has no room for it.
    """
    with _session() as session:
        go_on = partial(_go_on, session) if url.partition("://")[0].lower() in WEB else _copy
        _in_some_tries(partial(go_on, url, part, show), redact_text(url), part)


def remove(part: Path) -> None:
    """Remove what has come, and what is known of it."""
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def finish(part: Path, path: Path) -> None:
    """Give a file that is complete its name."""
    part.replace(path)
    _validator(part).unlink(missing_ok=True)


def _in_some_tries(go_on: Callable[[], None], url: str, part: Path) -> None:
    for attempt in range(TRIES):
        try:
            go_on()
        except BrokenOffError as error:
            if attempt == TRIES - 1:
                have = part.stat().st_size if part.is_file() else 0
                kept = f" {have:,} bytes are kept in {part}, and the same command goes on from there." if have else ""
                raise MissingSourceError(f"{url} could not be downloaded in {TRIES} tries: {error}.{kept}") from None
            wait = BACKOFF * 2**attempt
            logger.warning("%s; trying again in %g s.", error, wait)
            time.sleep(wait)
        else:
            return


def _session() -> requests.Session:
    session = requests.Session()
    # Connections that fail are tried again by download; a server that is busy, here.
    retry = Retry(connect=0, read=0, status=TRIES, status_forcelist=BUSY, backoff_factor=BACKOFF)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.headers["Accept-Encoding"] = "identity"  # so many bytes of the file as of the answer
    return session


def _go_on(session: requests.Session, url: str, part: Path, show: Show) -> None:
    """Read the rest of a file, or all of it where a server gives no rests or has another file by now."""
    have, validator = part.stat().st_size if part.is_file() else 0, _validator(part)
    headers = {}
    if have and validator.is_file():
        headers = {"Range": f"bytes={have}-", "If-Range": validator.read_text()}
    with _answer(session, url, headers) as answer:
        given, version = answer.headers.get("Content-Range", ""), _version(answer.headers)
        none_left = answer.status_code == requests.codes.requested_range_not_satisfiable
        if headers and none_left and given.endswith(f"*/{have}"):
            return
        goes_on = answer.status_code == requests.codes.partial_content
        have = have if headers and goes_on else 0
        other = goes_on and not given.startswith(f"bytes {have}-")
        if other or none_left or (have and version not in {None, validator.read_text()}):
            part.unlink(missing_ok=True)
            raise BrokenOffError("The server has another version of the file by now")
        if not have:
            validator.write_text(version) if version else validator.unlink(missing_ok=True)
        with part.open("ab" if have else "wb") as file:
            _save(_blocks(answer), file, _size(answer.headers, have), show, redact_text(url))


def _size(headers: Mapping[str, str], have: int) -> int | None:
    """Bytes of the whole file, where a server says so in a way that can be understood."""
    if total := re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", "")):
        return int(total[1])
    length = headers.get("Content-Length", "")
    return int(length) + have if length.isdecimal() and "Transfer-Encoding" not in headers else None


def _version(headers: Mapping[str, str]) -> str | None:
    """What tells one version of a file from another to the byte, which a weak tag does not."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    shown = redact_text(url)
    try:  # errors of libraries name the whole URL: none of them is shown, nor kept as the cause of ours
        answer = session.get(url, headers=headers, stream=True, timeout=(CONNECT, SILENCE))
    except requests.TooManyRedirects as error:
        raise MissingSourceError(f"{shown} is redirected again and again: {redact_text(str(error))}") from None
    except requests.exceptions.RetryError as error:
        why = _reason(error)
        raise MissingSourceError(
            f"{shown} could not be downloaded: the server answers with errors only ({why})."
        ) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise BrokenOffError(f"{shown} cannot be reached ({_reason(error)})") from None
    except (requests.RequestException, ValueError) as error:  # a redirection may lead to what is no URL
        why = redact_text(str(error))
        raise MissingSourceError(f"{shown}, or where it is redirected to, cannot be asked for: {why}") from None
    with answer:
        if answer.status_code not in ANSWERED:
            status = f"{answer.status_code} {answer.reason}"
            raise MissingSourceError(f"{shown} is not there: the server says {status}. Check dataset.path.")
        yield answer


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


def _copy(url: str, part: Path, show: Show) -> None:
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
    """What a file system says, in words of our own; writing is not its business."""
    url = redact_text(url)
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise MissingSourceError(f"{url} cannot be read ({type(error).__name__}). Check dataset.path.") from None
    except OSError as error:
        raise BrokenOffError(f"The connection broke off ({redact_text(str(error))})") from None
    except Exception as error:  # each has a library of its own, that asks for credentials in its own way
        raise MissingSourceError(f"{url} cannot be read here: {redact_text(str(error))}") from None


def _save(blocks: Iterator[bytes], file: BinaryIO, size: int | None, show: Show, url: str) -> None:
    """Write what comes, as long as the disk has room for the rest of it."""
    part = Path(file.name)
    for block in blocks:
        rest = len(block) if size is None else size - file.tell()
        if shutil.disk_usage(part.parent).free < LEFT_FREE + rest:
            what = f"{size:,} bytes" if size is not None else f"more than {file.tell():,} bytes"
            if size is None:  # perhaps it has no end
                remove(part)
            raise UserError(
                f"{url} has {what}, and {part.parent} has no room for so many: dataset.download_folder names another "
                "folder."
            )
        file.write(block)
        show(file.tell(), size)
    if size is not None and file.tell() != size:
        raise BrokenOffError(f"The connection ended after {file.tell():,} of {size:,} bytes")


def _validator(part: Path) -> Path:
    """Beside a part: what its server calls this version of the file."""
    return part.with_name(f"{part.name}.version")


def _reason(error: Exception) -> str:
    """The innermost of a chain of errors, in short."""
    cause = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return redact_text(re.sub(r"^.*?: ", "", str(cause).split("\n")[0]))
