"""The interface of a source of images, and helpers that several kinds of source share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ddpm_kedro.errors import UserError
from ddpm_kedro.files import file_checksum
from ddpm_kedro.images.class_names import readable
from ddpm_kedro.ingestion.collection import ImageCollection
from ddpm_kedro.ingestion.downloading import check, download, is_url
from ddpm_kedro.parameters import DatasetParameters
from ddpm_kedro.provenance import redact, redact_text

Manifest = dict[str, Any]


class Source(ABC):
    """A kind of source: finds or downloads files, and opens them as collections of images.

    :meth:`fetch` returns a manifest, plain data for JSON. :meth:`open` and :meth:`check` get nothing else. Its keys:

    - ``class_names``: one name per class; an empty list if there are no classes.
    - ``sha256``: checksums by name. If they change, the images are stored again.
    - ``parts``: optional, strings for splits that the checksums miss. If they change, the images are stored again.
    - ``looks``, ``pixels``: optional, the result of ``probe_source``. Without it, the images are probed when they are
      opened, and their pixels are not inspected.
    - ``files``, ``others``: optional, the numbers of images and of other files, for the report.

    The node adds ``source``, ``asked`` and ``path``. Other keys are private to the source, such as ``folder``.
    """

    @abstractmethod
    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download the files unless they are on this machine; return folder, class names and checksums."""

    @abstractmethod
    def open(self, manifest: Manifest) -> tuple[ImageCollection, ImageCollection | None]:
        """Open the training images, and the holdout images if the source has a split for them."""

    def check(self, manifest: Manifest) -> None:  # noqa: B027
        """Raise a UserError if the files have changed since the manifest was made.

        The default does no check: it is for files that never change.
        """


def refuse_path(dataset: DatasetParameters) -> None:
    """Raise a UserError if ``dataset`` has a path or a checksum: it would have no effect."""
    if dataset.path is not None:
        raise UserError(
            f"dataset.path = {redact_text(dataset.path)} has no effect with dataset.source={dataset.source}: for your "
            "own images add dataset.source=folder, archive, array or huggingface."
        )
    refuse_checksum(dataset)


def refuse_checksum(dataset: DatasetParameters) -> None:
    """Raise a UserError if ``dataset`` has a checksum: it would not be compared with anything."""
    if dataset.sha256 is not None:
        source = f"dataset.source={dataset.source}" if dataset.path is None else f"dataset.path = {dataset.path}"
        raise UserError(
            "dataset.sha256 is the checksum of one file, an archive or an array, and "
            f"{source} is not such a file: leave it at null."
        )


def locate(dataset: DatasetParameters, *, missing_ok: bool = False) -> str:
    """Return an absolute path, a URL or a name on the hub.

    The result refers to the same images in every working directory.

    With ``missing_ok``, a path that does not exist is made absolute, too.
    """
    path = str(dataset.path)
    if is_url(path):
        return str(redact(path))
    return os.path.realpath(path) if missing_ok or os.path.exists(path) else path


def fetch_path(dataset: DatasetParameters, expected: str, fits: Callable[[Path], bool]) -> Path:
    """Return ``dataset.path`` as a path on this machine; download it if it is a URL.

    Args:
        dataset: parameters whose path, checksum and download folder are used.
        expected: expected kind of file, for a message.
        fits: function that returns whether the content of a downloaded file is of that kind.

    Raises:
        UserError: if there is no path, it cannot be downloaded, or its checksum is not ``dataset.sha256``.
    """
    if dataset.path is None:
        raise UserError(f"dataset.source={dataset.source} needs dataset.path: {expected}, or its URL.")
    if is_url(dataset.path):
        return download(dataset.path, Path(dataset.download_folder) / dataset.source, dataset.sha256, fits)
    path = Path(dataset.path)
    if "://" in dataset.path and not path.exists():
        kind = dataset.path.partition("://")[0]
        raise UserError(f"dataset.path = {redact_text(dataset.path)}: no file system is known for {kind}://.")
    if path.is_dir():
        refuse_checksum(dataset)
    if dataset.sha256 is not None and path.is_file():
        check(path, str(path), dataset.sha256)
    return path


def choose_class_names(dataset: DatasetParameters, names: Iterable[str], problem: str) -> list[str]:
    """Return class names in a form that files, grids and commands can show; none if ``dataset.classes`` is false.

    Raises:
        UserError: if classes are required and there are none, because of the ``problem``.
    """
    class_names = readable(names)
    if dataset.classes and not class_names:
        raise UserError(f"dataset.classes is true, but {problem}.")
    return [] if dataset.classes is False else class_names


def checksums(paths: Iterable[Path], below: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path relative to a folder."""
    return {path.relative_to(below).as_posix(): file_checksum(path) for path in sorted(paths)}
