"""What the project's datasets share."""

from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset

In = TypeVar("In")
Out = TypeVar("Out")


class LocalDataset(AbstractDataset[In, Out], Generic[In, Out]):
    """A dataset in one local file or folder.

    Args:
        filepath: where it lies; None for what only a parameter names, and none does.
        metadata: free-form, for hooks and plugins; not used by Kedro.
    """

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._named, self._filepath = filepath is not None, Path(filepath or "")
        self.metadata = metadata

    def _exists(self) -> bool:
        return self._named and self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath) if self._named else None}
