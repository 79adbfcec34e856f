"""Base classes of the project's datasets."""

import json
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, TypeVar

import fsspec
from fsspec import AbstractFileSystem
from kedro.io import AbstractDataset
from kedro.io.core import get_protocol_and_path

from ddpm_kedro.atomic import write_text
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import seal
from ddpm_kedro.kedro_adapter import storage
from ddpm_kedro.provenance import fingerprint, redact, redact_text

In = TypeVar("In")
Out = TypeVar("Out")


class LocalDataset(AbstractDataset[In, Out], Generic[In, Out]):
    """Store data in one local file or folder.

    Args:
        filepath: path of the file or folder; None if the path comes from a parameter that is null.
        metadata: any values for hooks and plugins; not used by Kedro.
    """

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._named, self._filepath = filepath is not None, Path(self._local(filepath or ""))
        self.metadata = metadata

    @property
    def place(self) -> Path | None:
        """Return the local file or folder; None if the dataset has no path."""
        return self._filepath if self._named else None

    def _local(self, filepath: str) -> str:
        """Return the path without its protocol; accept only local files."""
        protocol, path = get_protocol_and_path(filepath)
        if protocol != "file":
            raise UserError(
                f"{redact(filepath)} is not on a local disk; a {type(self).__name__} needs one: its files are memory-"
                "mapped or replaced atomically. Use a local path, such as a mounted disk."
            )
        return str(path)

    def _exists(self) -> bool:
        return self._named and self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath) if self._named else None}


class FileDataset(LocalDataset[In, Out], Generic[In, Out]):
    """Store data in one file or folder of any file system that fsspec knows, such as ``s3://bucket/samples.npz``.

    A subclass reads and writes ``self._filepath`` as a local path. For a remote file it is a temporary copy, which is
    downloaded before ``load``, ``fingerprint`` and ``preview``, and uploaded after ``save``.

    Args:
        filepath, metadata: see :class:`LocalDataset`; the path may be a URL.
        credentials, fs_args: arguments for the file system.

    Attributes:
        marker: name of a file in a folder; a folder without this file counts as empty.
    """

    marker: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the methods that read and write, before Kedro does."""
        for name in {"load", "fingerprint", "preview", "save"} & vars(cls).keys():
            setattr(cls, name, _through_a_copy(vars(cls)[name], put=name == "save"))
        super().__init_subclass__(**kwargs)

    def __init__(
        self,
        *,
        filepath: str | None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._url, self._files, self._root = filepath, None, ""
        if filepath is None or get_protocol_and_path(filepath)[0] == "file":
            super().__init__(filepath=filepath, metadata=metadata)
            return
        try:
            self._files, self._root = fsspec.url_to_fs(filepath, **(credentials or {}), **(fs_args or {}))
        except (ImportError, ValueError) as error:
            raise UserError(redact_text(f"{filepath} cannot be opened: {error}.")) from error
        self._named, self._filepath, self.metadata = True, Path(self._root), metadata

    @contextmanager
    def local_copy(self, fetched: bool = True) -> Iterator[Path]:
        """Yield the local path, or a temporary local copy of a remote file or folder.

        Args:
            fetched: whether to download first; if False, nothing is downloaded and the path is for writing.
        """
        if self._files is None:
            yield self._filepath
            return
        files, self._files, remote = self._files, None, self._filepath
        with TemporaryDirectory() as folder:
            self._filepath = Path(folder, posixpath.basename(self._root))
            try:
                if fetched:
                    fetch(files, self._root, self._filepath)
                yield self._filepath
            except UserError as error:
                raise UserError(str(error).replace(str(self._filepath), str(redact(self._url)))) from error
            finally:
                self._files, self._filepath = files, remote

    def remote_stamp(self) -> str:
        """Return a hash of the properties of remote files, which changes if a file does; "" for a local path."""
        if self._files is None:
            return ""
        self._files.invalidate_cache()
        root = self._files._strip_protocol(self._root)
        return fingerprint({name: self._files.ukey(name) for name in self._files.find(root)})

    def _exists(self) -> bool:
        if self._files is None:
            return self._named and (self._filepath / self.marker).exists()
        self._files.invalidate_cache()
        return bool(self._files.exists(posixpath.join(self._root, self.marker).rstrip("/")))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": redact(self._url)}


def _through_a_copy(method: Callable[..., Any], put: bool) -> Callable[..., Any]:
    """Let a method of a remote dataset work on a local copy."""

    @wraps(method)
    def wrapped(self: FileDataset[Any, Any], *args: Any) -> Any:
        files, root = self._files, self._root
        with self.local_copy(fetched=not put) as local:
            result = method(self, *args)
            if put and files is not None:
                upload(files, local, root, self.marker)
        return result

    return wrapped


@contextmanager
def local_copy(dataset: Any) -> Iterator[Path]:
    """Yield the local path of any dataset, also one of Kedro's, or a temporary local copy of its remote data."""
    if isinstance(dataset, FileDataset):
        with dataset.local_copy() as local:
            yield local
        return
    files, path = storage(dataset)
    if files is None:
        yield Path(path)
        return
    with TemporaryDirectory() as folder:
        local = Path(folder, posixpath.basename(path))
        fetch(files, path, local)
        yield local


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file with the checksum of its content; NaN is an error."""
    write_text(path, json.dumps(seal(document), indent=2, allow_nan=False) + "\n")


def fetch(files: AbstractFileSystem, root: str, local: Path) -> None:
    """Download a file or folder, if it exists."""
    files.invalidate_cache()
    root = files._strip_protocol(root)
    for name in files.find(root):  # get(recursive=True) treats brackets in a name as a pattern
        target = local / name.removeprefix(root).lstrip("/") if name != root else local
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(target))


def upload(files: AbstractFileSystem, local: Path, root: str, marker: str) -> None:
    """Upload a file or folder; in a folder, ``marker`` is removed first and written last."""
    if local.is_file():
        files.makedirs(posixpath.dirname(root), exist_ok=True)
        files.put_file(str(local), root)
        return
    files.makedirs(root, exist_ok=True)
    with suppress(FileNotFoundError):
        files.rm_file(f"{root}/{marker}")
    names = sorted(
        (path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()), key=marker.__eq__
    )
    for stale in {name.removeprefix(f"{root}/") for name in files.find(root)} - {*names}:
        files.rm_file(f"{root}/{stale}")
    for name in names:
        files.makedirs(posixpath.dirname(f"{root}/{name}"), exist_ok=True)
        files.put_file(str(local / name), f"{root}/{name}")
