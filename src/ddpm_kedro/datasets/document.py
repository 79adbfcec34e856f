"""Small JSON documents that a later node reads."""

from typing import Any

from ddpm_kedro.datasets.base import FileDataset, write_document
from ddpm_kedro.files import read_document, reading
from ddpm_kedro.kedro_adapter import JSONPreview

Document = dict[str, Any] | list[Any]
ROWS = "rows"


class DocumentDataset(FileDataset[Document, Document]):
    """Store a JSON file with the checksum of its content; a list of rows is stored under the name ``rows``."""

    def load(self) -> Document:
        """Load the document."""
        with reading(self._filepath, "`kedro run` makes it again."):
            document = read_document(self._filepath)
            found: Document = document.get(ROWS, document)
            return found

    def save(self, data: Document) -> None:
        """Write the document; NaN is an error."""
        document = {ROWS: data} if isinstance(data, list) else data
        write_document(self._filepath, document)

    def preview(self) -> JSONPreview:
        """Return the text for Kedro-Viz."""
        return JSONPreview(self._filepath.read_text())
