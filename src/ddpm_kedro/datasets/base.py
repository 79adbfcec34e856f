"""What the project's datasets share."""

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

from ddpm_kedro.errors import UserError
from ddpm_kedro.kedro_adapter import storage
from ddpm_kedro.nothing import NOTHING
from ddpm_kedro.provenance import redact, redact_text

In = TypeVar("In")
Out = TypeVar("Out")


class LocalDataset(AbstractDataset[In, Out], Generic[In, Out]):
    """A dataset in one local file or folder.

    Args:
        filepath: where it lies; None for what only a parameter names, and none does.
        metadata: free-form, for hooks and plugins; not used by Kedro.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Call ``save_nothing`` in place of ``save`` for NOTHING."""
        if "save" in vars(cls):
            cls.save = _unless_nothing(cls.save)  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._named, self._filepath = filepath is not None, Path(self._local(filepath or ""))
        self.metadata = metadata

    def _local(self, filepath: str) -> str:
        """Return the path without its protocol; only the protocol of local files is accepted."""
        protocol, path = get_protocol_and_path(filepath)
        if protocol != "file":
            raise UserError(
                f"{redact(filepath)} is not on a local disk, and a {type(self).__name__} must be: its files are mapped "
                "into memory, or replaced in one step. Give it a local path, such as that of a mounted disk."
            )
        return str(path)

    def save_nothing(self) -> None:
        """Keep the data saved before; a subclass may remove it."""

    def _exists(self) -> bool:
        return self._named and self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath) if self._named else None}


class FileDataset(LocalDataset[In, Out], Generic[In, Out]):
    """A dataset in one file or folder of any file system that fsspec knows, such as ``s3://bucket/samples.npz``.

    A subclass reads and writes ``self._filepath`` as if it were local: elsewhere, that is a copy that is fetched
    before ``load``, ``fingerprint`` and ``preview``, and put in its place after ``save``.

    Args:
        filepath: as of :class:`LocalDataset`, or a URL.
        credentials: what the file system is opened with.
        fs_args: further arguments of the file system.
        metadata: as of :class:`LocalDataset`.

    Attributes:
        marker: of a folder, the file without which the folder counts as empty.
    """

    marker: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap what reads and what writes, before Kedro does."""
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
        """Give the file or folder on a local disk: itself, or a copy that lasts as long as the block.

        Args:
            fetched: False for a place to write to, without what is elsewhere.
        """
        if self._files is None:
            yield self._filepath
            return
        files, self._files, elsewhere = self._files, None, self._filepath
        with TemporaryDirectory() as folder:
            self._filepath = Path(folder, posixpath.basename(self._root))
            try:
                if fetched:
                    fetch(files, self._root, self._filepath)
                yield self._filepath
            except UserError as error:
                raise UserError(str(error).replace(str(self._filepath), str(redact(self._url)))) from error
            finally:
                self._files, self._filepath = files, elsewhere

    def _exists(self) -> bool:
        if self._files is None:
            return self._named and (self._filepath / self.marker).exists()
        self._files.invalidate_cache()
        return bool(self._files.exists(posixpath.join(self._root, self.marker).rstrip("/")))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": redact(self._url)}


def _unless_nothing(save: Callable[..., None]) -> Callable[..., None]:
    @wraps(save)
    def wrapped(self: LocalDataset[Any, Any], data: Any) -> None:
        if data is NOTHING:
            self.save_nothing()
        else:
            save(self, data)

    return wrapped


def _through_a_copy(method: Callable[..., Any], put: bool) -> Callable[..., Any]:
    """Let a method of a dataset that lies elsewhere work on a local copy."""

    @wraps(method)
    def wrapped(self: FileDataset[Any, Any], *args: Any) -> Any:
        files, root = self._files, self._root
        with self.local_copy(fetched=not put) as here:
            result = method(self, *args)
            if put and files is not None:
                put_as_a_whole(files, here, root, self.marker)
        return result

    return wrapped


@contextmanager
def local_copy(dataset: Any) -> Iterator[Path]:
    """Give what a dataset, also one of Kedro's own, has in a file or folder: itself, or a copy of what is elsewhere."""
    if isinstance(dataset, FileDataset):
        with dataset.local_copy() as here:
            yield here
        return
    files, path = storage(dataset)
    if files is None:
        yield Path(path)
        return
    with TemporaryDirectory() as folder:
        here = Path(folder, posixpath.basename(path))
        fetch(files, path, here)
        yield here


def fetch(files: AbstractFileSystem, root: str, here: Path) -> None:
    """Copy a file or folder of another file system here, if there is one."""
    files.invalidate_cache()
    root = files._strip_protocol(root)
    for name in files.find(root):
        target = here / name.removeprefix(root).lstrip("/") if name != root else here
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(target))


def put_as_a_whole(files: AbstractFileSystem, here: Path, root: str, marker: str) -> None:
    """Copy a file or folder to another file system; of a folder ``marker`` is removed first and written last."""
    if here.is_file():
        files.makedirs(posixpath.dirname(root), exist_ok=True)
        files.put_file(str(here), root)
        return
    files.makedirs(root, exist_ok=True)
    with suppress(FileNotFoundError):
        files.rm_file(f"{root}/{marker}")
    names = sorted((path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()), key=marker.__eq__)
    for stale in {name.removeprefix(f"{root}/") for name in files.find(root)} - {*names}:
        files.rm_file(f"{root}/{stale}")
    for name in names:
        files.makedirs(posixpath.dirname(f"{root}/{name}"), exist_ok=True)
        files.put_file(str(here / name), f"{root}/{name}")
