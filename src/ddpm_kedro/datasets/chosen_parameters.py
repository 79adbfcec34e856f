"""The parameters stored for your own images; the next commands use them again."""

import json
from pathlib import Path
from typing import Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters.earlier import convert_stored
from ddpm_kedro.provenance import fingerprint

AGAIN = (
    "Ingest the images again (kedro run --pipelines data_ingestion --params use.dataset=…,dataset.path=…), or choose "
    "others (--params use.dataset=mnist5k)."
)


class ChosenParametersDataset(LocalDataset[dict[str, Any], dict[str, Any]]):
    """Store parameters and their fingerprint in a JSON file; empty for images that are not your own."""

    def load(self) -> dict[str, Any]:
        """Return the parameters."""
        return read_chosen(self._filepath)

    def save(self, data: dict[str, Any]) -> None:
        """Replace the stored parameters."""
        document = {"parameters": data, "fingerprint": fingerprint(data)}
        write_text(self._filepath, json.dumps(document, indent=2) + "\n")


class EarlierManifestDataset(LocalDataset[Any, dict[str, Any] | None]):
    """Load the manifest of the images ingested by the previous run."""

    def load(self) -> dict[str, Any] | None:
        """Return the manifest; None if it is missing or cannot be read."""
        try:
            manifest = json.loads(self._filepath.read_text())
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def save(self, data: Any) -> None:
        """Raise: this file is saved as ``raw_images``."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True


def read_chosen(path: Path) -> dict[str, Any]:
    """Return the stored parameters; raise UserError if the file is damaged."""
    try:
        stored = json.loads(path.read_text())
        parameters: dict[str, Any] = stored["parameters"]
        damaged = fingerprint(parameters) != stored["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        damaged = True
    if damaged:
        raise UserError(
            f"{path} (the parameters chosen for the images ingested last) is damaged or was edited. {AGAIN}"
        )
    return convert_stored(parameters)


def check_nothing_ingested(path: Path, manifest: Path) -> None:
    """Raise UserError if your own images were ingested last, but their parameters are not stored in ``path``."""
    earlier = EarlierManifestDataset(filepath=str(manifest)).load()
    if (earlier is None and manifest.exists()) or (earlier is not None and "path" in earlier):
        images = "The images ingested last" if earlier is None else f"The images of {earlier['path']}"
        raise UserError(f"{images} were not ingested completely, or {path} was removed. {AGAIN}")
