"""A catalog whose datasets never leave half-written files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kedro.io import DataCatalog, DatasetError

from ddpm_kedro.atomic import copy, replaced
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.figure import FigureFolderDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.kedro_adapter import local_path, overwrites, written_to
from ddpm_kedro.provenance import flatten

RENAMED = {
    f"{__package__}.{old}": f"{__package__}.{new}"
    for old, new in {
        "chosen.ChosenParametersDataset": "chosen_parameters.ChosenParametersDataset",
        "chosen.EarlierManifestDataset": "chosen_parameters.EarlierManifestDataset",
        "picture.PictureDataset": "figure.FigureDataset",
        "picture.OptionalPictureDataset": "figure.OptionalFigureDataset",
        "pictures.PicturesDataset": "figure.FigureFolderDataset",
    }.items()
}
"""Dataset classes that a catalog of an earlier release may name, and their current names."""


class AtomicCatalog(DataCatalog):
    """Keep the earlier local data of Kedro's own datasets until the new data is complete.

    The datasets of this project write atomically themselves. Versioned datasets replace nothing.
    """

    def save(self, ds_name: str, data: Any) -> None:
        """Save data to a registered dataset; see :meth:`DataCatalog.save`."""
        try:
            with _atomic_save(self[ds_name]):
                super().save(ds_name, data)
        except OSError as error:
            raise DatasetError(f"{ds_name}: {error}") from error


@contextmanager
def _atomic_save(dataset: Any) -> Iterator[None]:
    """Let a dataset write to a temporary path; it replaces the dataset's path if the block succeeds."""
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
    """Raise UserError if a file of the catalog names a dataset class that has another name today."""
    for name, value in flatten(dict(entries)):
        if isinstance(value, str) and value in RENAMED:
            raise UserError(f"{file}, {name}: {value} has another name now. Write {RENAMED[value]}.")
