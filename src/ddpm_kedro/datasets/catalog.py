"""A catalog whose datasets write as a whole or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kedro.io import DataCatalog, DatasetError

from ddpm_kedro.datasets.atomic import copy, replaced
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.figure_folder import FigureFolderDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.kedro_adapter import local_path, overwrites, written_to
from ddpm_kedro.provenance import flatten

RENAMED = {
    "ddpm_kedro.datasets.picture.PictureDataset": "ddpm_kedro.datasets.figure.FigureDataset",
    "ddpm_kedro.datasets.picture.OptionalPictureDataset": "ddpm_kedro.datasets.figure.OptionalFigureDataset",
    "ddpm_kedro.datasets.pictures.PicturesDataset": "ddpm_kedro.datasets.figure_folder.FigureFolderDataset",
}
"""Dataset classes that a catalog of an earlier release may name, and their names today."""


class AtomicCatalog(DataCatalog):
    """Kedro's catalog; where one of Kedro's own datasets writes locally, the earlier data stays until all is written.

    Datasets of this project see to that by themselves. Versioned datasets replace nothing.
    """

    def save(self, ds_name: str, data: Any) -> None:
        """Save data to a registered dataset; see :meth:`DataCatalog.save`."""
        try:
            with _written_as_a_whole(self[ds_name]):
                super().save(ds_name, data)
        except OSError as error:
            raise DatasetError(f"{ds_name}: {error}") from error


@contextmanager
def _written_as_a_whole(dataset: Any) -> Iterator[None]:
    """Let a dataset write beside its path, and replace the path when the block ends well."""
    path = None if isinstance(dataset, LocalDataset | FigureFolderDataset) else local_path(dataset)
    if path is None:
        yield
        return
    with replaced(path) as new:
        if path.exists() and not overwrites(dataset):
            copy(path, new)
        with written_to(dataset, new):
            yield


def check_types(file: str, entries: Mapping[str, Any]) -> None:
    """Refuse a dataset class that has another name today.

    Args:
        file: a file of the catalog.
        entries: its content.

    Raises:
        UserError: with the file, the entry and the name to write.
    """
    for name, value in flatten(dict(entries)):
        if isinstance(value, str) and value in RENAMED:
            raise UserError(f"{file}, {name}: {value} has another name now. Write {RENAMED[value]}.")
