"""Downloads from servers and over connections that misbehave."""

import hashlib
import io
import shutil
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import fsspec.implementations.memory
import numpy as np
import pytest

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion import downloading, transferring
from ddpm_kedro.ingestion.downloading import download, is_url
from ddpm_kedro.ingestion.image_files import is_archive
from ddpm_kedro.provenance import redact

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Web(BaseHTTPRequestHandler):
    """Responds as the first part of a path says, and notes the requests."""

    def __init__(self, *given: object, noted: list[tuple[str, str | None]], content: bytes) -> None:
        self.noted, self.content = noted, content
        super().__init__(*given)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self.noted.append((self.path, self.headers.get("Range")))
        getattr(self, self.path.split("/")[1])()

    def times(self) -> int:
        return sum(path == self.path for path, _ in self.noted)

    def answer(self, *, ranges: bool = True, upto: int | None = None, etag: str = '"1"', sized: bool = True) -> None:
        asked, start = self.headers.get("Range"), 0
        if ranges and asked and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(self.content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        if sized:
            self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:upto])

    def whole(self) -> None:
        self.answer()

    def unsized(self) -> None:
        self.answer(sized=False)

    def breaks(self) -> None:
        """Break off twice, the second time further on."""
        self.answer(upto=100_000 * self.times() if self.times() < 3 else None)

    def forgetful(self) -> None:
        """Break off, and support no ranges."""
        self.answer(ranges=False, upto=100_000 if self.times() == 1 else None)

    def other(self) -> None:
        """Break off, and then have another version of the file."""
        if self.times() == 1:
            self.content = bytes(len(self.content))
            self.answer(upto=100_000, etag='"0"')
        else:
            self.answer()

    def deaf(self) -> None:
        """Break off, then have another version and send its rest, whatever If-Range is."""
        if self.times() == 1:
            self.content = bytes(len(self.content))
            self.answer(upto=100_000, etag='"0"')
        elif self.headers.get("Range"):
            self.headers.replace_header("If-Range", '"1"')
            self.answer()
        else:
            self.answer()

    def weak(self) -> None:
        """Break off, and have only a weak tag."""
        self.answer(etag='W/"1"', upto=100_000 if self.times() == 1 else None)

    def always(self) -> None:
        self.answer(upto=1000)

    def missing(self) -> None:
        self.send_error(404)

    def broken(self) -> None:
        self.send_error(500)

    def busy(self) -> None:
        self.send_error(503) if self.times() < 3 else self.answer()

    def circle(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/whole/file.zip")
        self.end_headers()

    def trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        for index in range(100):
            self.wfile.write(self.content[index : index + 1])
            time.sleep(0.02)

    def silent(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[:1000])
        time.sleep(1)

    def redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.end_headers()

    def malformed_redirect(self) -> None:
        self.redirect("http://[1:2/file.zip")

    def other_redirect(self) -> None:
        self.redirect("gopher://me:pw@host/x?token=1")

    def no_content(self) -> None:
        self.send_response(204)
        self.end_headers()

    def text(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def empty(self) -> None:
        self.text(b"", Content_Length="0")

    def login(self) -> None:
        self.text(b"\n<!doctype html><title>Log in</title>", Content_Type="text/html")

    def too_short(self) -> None:
        self.text(self.content, Content_Length="1000")

    def length_in_words(self) -> None:
        self.text(self.content, Content_Length="many", ETag='"1"')

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(200):
            self.wfile.write(bytes(2**20))

    def huge(self) -> None:
        self.text(self.content, Content_Length=str(2**60))

    def part_of(self, first: int, last: int) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(self.content[first : last + 1])

    def unasked_part(self) -> None:
        """Send the whole file as a part."""
        self.part_of(0, len(self.content) - 1)

    def unasked_beginning(self) -> None:
        self.answer() if self.headers.get("Range") else self.part_of(0, 99_999)

    def other_part(self) -> None:
        self.part_of(5, 99)

    def nothing_left(self) -> None:
        self.send_response(416)
        self.end_headers()

    def slow(self) -> None:
        time.sleep(0.15)
        self.answer()


Noted = list[tuple[str, str | None]]


def files_below(folder: Path) -> list[Path]:
    """Return all files but locks."""
    return [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock"]


def archive_of(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("picture.png", content)
    return file.getvalue()


@contextmanager
def served(content: bytes = CONTENT) -> Iterator[tuple[str, Noted]]:
    noted: Noted = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, noted=noted, content=content))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", noted
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def web() -> Iterator[tuple[str, Noted]]:
    with served() as made:
        yield made


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transferring, "BACKOFF", 0.001)
    monkeypatch.setattr(transferring, "SILENCE", 0.2)
    monkeypatch.setattr(transferring, "SLOW_FOR", 0.2)


@pytest.mark.parametrize(
    "kind",
    [
        *("whole", "unsized", "breaks", "forgetful", "other", "deaf", "weak", "busy", "moved", "whole/below/a%20b"),
        *("length_in_words", "unasked_part", "unasked_beginning"),
    ],
)
def test_the_file_is_complete_after_any_interruption(kind: str, web: tuple[str, Noted], tmp_path: Path) -> None:
    path = download(f"{web[0]}/{kind}/file.zip?version=3", tmp_path / "new", SHA256)
    assert path.read_bytes() == CONTENT
    assert files_below(tmp_path / "new") == [path]
    assert path.name == "file.zip"


def test_received_bytes_are_not_requested_again(web: tuple[str, Noted], tmp_path: Path) -> None:
    download(f"{web[0]}/breaks/file.zip", tmp_path, SHA256)
    assert [asked for _, asked in web[1]] == [None, "bytes=100000-", "bytes=200000-"]
    download(f"{web[0]}/breaks/file.zip", tmp_path, SHA256)
    assert len(web[1]) == 3


def test_another_run_resumes_the_download(
    web: tuple[str, Noted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferring, "TRIES", 1)
    with pytest.raises(UserError, match=r"in 1 tries: .*100,000 bytes are kept in .*file.zip.part: run the same comm"):
        download(f"{web[0]}/breaks/file.zip", tmp_path, SHA256)
    assert not list(tmp_path.rglob("file.zip"))
    with pytest.raises(UserError, match="200,000 bytes are kept"):
        download(f"{web[0]}/breaks/file.zip", tmp_path, SHA256)
    assert download(f"{web[0]}/breaks/file.zip", tmp_path, SHA256).read_bytes() == CONTENT


def test_a_complete_part_is_checked_and_used(web: tuple[str, Noted], tmp_path: Path) -> None:
    path = download(f"{web[0]}/whole/file.zip", tmp_path, SHA256)
    part = path.rename(path.with_name("file.zip.part"))
    part.with_name("file.zip.part.version").write_text('"1"')
    assert download(f"{web[0]}/whole/file.zip", tmp_path, SHA256).read_bytes() == CONTENT
    assert web[1][-1][1] == f"bytes={len(CONTENT)}-"


def test_a_part_longer_than_the_file_starts_from_scratch(web: tuple[str, Noted], tmp_path: Path) -> None:
    path = download(f"{web[0]}/whole/file.zip", tmp_path, SHA256)
    path.with_name("file.zip.part").write_bytes(CONTENT + b"more")
    path.with_name("file.zip.part.version").write_text('"1"')
    path.unlink()
    assert download(f"{web[0]}/whole/file.zip", tmp_path, None).read_bytes() == CONTENT


def test_equal_names_at_other_addresses_are_other_files(web: tuple[str, Noted], tmp_path: Path) -> None:
    with served(b"another") as (address, _):
        other = download(f"{address}/whole/file.zip", tmp_path, None)
        query = download(f"{address}/whole/file.zip?id=2", tmp_path, None)
    assert download(f"{web[0]}/whole/file.zip", tmp_path, SHA256).read_bytes() == CONTENT
    assert other.read_bytes() == query.read_bytes() == b"another"
    assert other != query


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "was not found: the server returns 404 Not Found. Check dataset.path"),
        ("broken", "could not be downloaded: the server only returns errors"),
        ("circle", "is redirected too often"),
        ("always", r"in 5 tries: The connection broke off. 1,000 bytes are kept"),
        ("trickle", r"in 5 tries: Only \d+ bytes per second were received"),
        ("silent", r"in 5 tries: Nothing was received for 0.2 s"),
        ("no_content", "was not found: the server returns 204 No Content"),
        (
            "malformed_redirect",
            r"/malformed_redirect/file.zip, or its redirection, cannot be requested: Inva",
        ),
        ("other_redirect", r"cannot be requested: No connection adapters were found for 'gopher://host/x\?…'"),
        ("other_part", r"in 5 tries: The file on the server has changed\.$"),
        ("nothing_left", r"in 5 tries: The file on the server has changed\.$"),
    ],
)
def test_failed_downloads_are_errors_with_the_reason(
    kind: str, message: str, web: tuple[str, Noted], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        download(f"{web[0]}/{kind}/file.zip", tmp_path, SHA256)
    assert not list(tmp_path.rglob("file.zip"))


def test_a_refused_connection_is_an_error(tmp_path: Path) -> None:
    with served() as (address, _):
        pass
    with pytest.raises(UserError, match=r"127.0.0.1:\d+/whole/file.zip cannot be reached \(.*refused"):
        download(f"{address}/whole/file.zip", tmp_path, SHA256)


def test_a_file_with_another_checksum_is_refused(web: tuple[str, Noted], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"does not match dataset.sha256: its checksum is {SHA256}, not 00"):
        download(f"{web[0]}/whole/file.zip", tmp_path, "00" * 32)
    assert not files_below(tmp_path)


def test_a_cached_file_with_another_checksum_is_downloaded_again(
    web: tuple[str, Noted], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, noted = web
    path = download(f"{address}/whole/file.bin", tmp_path, None)
    path.write_bytes(b"as it was before")
    assert download(f"{address}/whole/file.bin", tmp_path, None).read_bytes() == b"as it was before"
    assert f"Using the cached {path} of " in caplog.text
    assert len(noted) == 1
    assert download(f"{address}/whole/file.bin", tmp_path, SHA256).read_bytes() == CONTENT
    assert "does not have the checksum dataset.sha256: downloading it again" in caplog.text
    assert len(noted) == 2


def test_an_unknown_checksum_is_logged(
    web: tuple[str, Noted], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert download(f"{web[0]}/whole/file.zip", tmp_path, None).read_bytes() == CONTENT
    assert f"dataset.sha256={SHA256}" in caplog.text


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("login", "/login/file.zip gave a web page, not a file of the kind"),
        ("empty", "/empty/file.zip gave 0 bytes, not"),
        ("too_short", "/too_short/file.zip gave 1,000 bytes, not"),
    ],
)
def test_a_response_that_is_no_archive_is_not_kept(
    kind: str, message: str, web: tuple[str, Noted], tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            download(f"{web[0]}/{kind}/file.zip", tmp_path, None, is_archive)
    assert not files_below(tmp_path)
    assert len(web[1]) >= 2  # asked again each time; a busy machine may retry


def test_a_cached_web_page_is_replaced_by_the_archive(web: tuple[str, Noted], tmp_path: Path) -> None:
    with served(archive_of(b"picture")) as (address, _):
        url = f"{address}/whole/file.zip"
        path = download(url, tmp_path, None)
        path.write_bytes(b"<html>")
        assert zipfile.is_zipfile(download(url, tmp_path, None, is_archive))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("endless", r"/endless/file.zip has more than \d[\d,]* bytes, and .* is too full"),
        ("huge", r"/huge/file.zip has 1,152,921,504,606,846,976 bytes, and .* is too full"),
        ("whole", r"/whole/file.zip has 300,000 bytes, and .* is too full"),
    ],
)
def test_a_file_larger_than_the_disk_is_refused(
    kind: str, message: str, web: tuple[str, Noted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter(range(transferring.LEFT_FREE + (5 * 2**20 if kind == "endless" else 1000), 0, -(2**20)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(UserError, match=message):
        download(f"{web[0]}/{kind}/file.zip", tmp_path, None)
    assert sum(file.stat().st_size for file in files_below(tmp_path)) < 1000


def test_concurrent_downloads_of_one_url_fetch_it_once(web: tuple[str, Noted], tmp_path: Path) -> None:
    url = f"{web[0]}/slow/file.zip"
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: download(url, tmp_path, SHA256), range(4)))
    assert len({*paths}) == 1
    assert paths[0].read_bytes() == CONTENT
    assert len(web[1]) == 1


def test_urls_share_a_file_only_if_they_differ_in_secrets(web: tuple[str, Noted], tmp_path: Path) -> None:
    url = f"{web[0]}/whole/file.zip".replace("://", "://me:pw@")
    one, same, other = (
        download(f"{url}?{query}", tmp_path, SHA256) for query in ("id=1&token=a", "id=1&token=b&expires=9", "id=2")
    )
    assert one == same != other
    assert len(web[1]) == 2


def test_a_redacted_url_names_the_file_that_was_downloaded(web: tuple[str, Noted], tmp_path: Path) -> None:
    url = f"{web[0]}/whole/file.zip?token=secret"
    path = download(url, tmp_path, SHA256)
    assert download(redact(url), tmp_path, SHA256) == path
    path.unlink()
    with pytest.raises(UserError, match=r"stands for a URL whose user, password or query were not stored"):
        download(redact(url), tmp_path, SHA256)


@pytest.mark.parametrize("kind", ["missing", "broken", "circle", "always", "silent", "login", "whole", "huge"])
def test_no_message_has_secrets_of_the_url(
    kind: str, web: tuple[str, Noted], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ddpm_kedro")
    url = f"{web[0]}/{kind}/file.zip?token=s3cret".replace("://", "://me:s3cret@")
    try:
        download(url, tmp_path, None, is_archive)
    except UserError:
        assert "s3cret" not in traceback.format_exc()
    assert "s3cret" not in caplog.text
    assert not any("s3cret" in str(path) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("path", "name"), [("", "download"), ("/..", "download"), ("/a/%2e%2e%2fb.zip", "b.zip"), ("/a/.hidden", "hidden")]
)
def test_file_names_cannot_leave_the_folder(path: str, name: str) -> None:
    assert downloading._name(f"http://host{path}?x=/y") == name


@pytest.fixture
def bucket() -> Iterator[str]:
    """Return a folder of a file system in memory, in place of an object store."""
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/file.zip", CONTENT)
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def test_files_of_an_object_store_are_downloaded(bucket: str, tmp_path: Path) -> None:
    path = download(f"{bucket}/file.zip", tmp_path, SHA256)
    assert path.read_bytes() == CONTENT
    assert download(path.as_uri(), tmp_path / "copy", SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("change", [b"", b"another"])
def test_a_download_from_an_object_store_resumes_unless_it_changed(
    change: bytes, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferring, "TRIES", 1)
    monkeypatch.setattr(transferring, "BLOCK", 100_000)
    read, seen = fsspec.implementations.memory.MemoryFile.read, list[int]()

    def broken(file: Any, count: int) -> bytes:
        seen.append(file.tell())
        if len(seen) == 2:
            raise OSError("gone")
        content: bytes = read(file, count)
        return content

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", broken, raising=False)
    with pytest.raises(UserError, match="100,000 bytes are kept"):
        download(f"{bucket}/file.zip", tmp_path, None)
    if change:
        fsspec.filesystem("memory").pipe("/bucket/file.zip", change)
    assert download(f"{bucket}/file.zip", tmp_path, None).read_bytes() == (change or CONTENT)
    assert seen[2] == (0 if change else 100_000)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/other.zip", r"cannot be read \(FileNotFoundError\). Check dataset.path"),
        ("s3://bucket/file.zip", "cannot be read here: .*s3fs"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_missing_objects_and_libraries_are_errors(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        download(url, tmp_path, SHA256)
    assert not files_below(tmp_path)


def test_an_interrupted_object_store_is_tried_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = fsspec.implementations.memory.MemoryFile.read, iter(range(9))

    def broken(file: Any, count: int) -> bytes:
        if next(times) == 1:
            raise OSError("gone")
        return read(file, 100_000)

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "read", broken, raising=False)
    assert download(f"{bucket}/file.zip", tmp_path, SHA256).read_bytes() == CONTENT


def test_urls_are_distinguished_from_paths() -> None:
    assert is_url("https://host/pictures.zip")
    assert is_url("s3://bucket/pictures.zip")
    assert not is_url("folder://pictures.zip")
    assert not is_url("pictures.zip")
    assert not is_url("C:/pictures.zip")
    assert is_url("https://[1:2/pictures.zip")
