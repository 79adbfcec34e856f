"""A catalog whose datasets write as a whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kedro.io import DataCatalog, DatasetError

from ddpm_kedro.atomic import copy, replaced
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.figure_folder import FigureFolderDataset


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
    own = isinstance(dataset, LocalDataset | FigureFolderDataset) or getattr(dataset, "_version", None) is not None
    name = next((each for each in ("_filepath", "_path") if hasattr(dataset, each)), None)
    if own or name is None or getattr(dataset, "_protocol", None) != "file":
        yield
        return
    configured = getattr(dataset, name)
    path = Path(str(configured).removeprefix("file://"))
    with replaced(path) as new:
        if path.exists() and not getattr(dataset, "_overwrite", False):  # it may add to what is there
            copy(path, new)
        setattr(dataset, name, type(configured)(str(new)))
        try:
            yield
        finally:
            setattr(dataset, name, configured)
