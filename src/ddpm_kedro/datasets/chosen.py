"""The stored choice: the parameters that the next commands use for images of one's own."""

import json
from pathlib import Path
from typing import Any

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import fingerprint

AGAIN = (
    "Ingest the images again (kedro run --pipelines data_ingestion --params use.dataset=…,dataset.path=…), or name "
    "others (--params use.dataset=mnist5k)."
)


class ChosenParametersDataset(LocalDataset[dict[str, Any], dict[str, Any]]):
    """One JSON file with parameters and their fingerprint; empty where the images are not one's own."""

    def load(self) -> dict[str, Any]:
        """Return the parameters."""
        return read_chosen(self._filepath)

    def save(self, data: dict[str, Any]) -> None:
        """Replace the choice."""
        with atomic_write(self._filepath) as file:
            file.write(json.dumps({"parameters": data, "fingerprint": fingerprint(data)}, indent=2).encode() + b"\n")


class EarlierManifestDataset(LocalDataset[Any, dict[str, Any] | None]):
    """The manifest of the images that were ingested before."""

    def load(self) -> dict[str, Any] | None:
        """Return the earlier manifest; None if it is missing or cannot be read."""
        try:
            manifest = json.loads(self._filepath.read_text())
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def save(self, data: Any) -> None:
        """Refuse: ``raw_images`` is written under its own name."""
        raise NotImplementedError

    def _exists(self) -> bool:
        return True


def read_chosen(path: Path) -> dict[str, Any]:
    """Return the parameters of a stored choice.

    Raises:
        UserError: where it is damaged.
    """
    try:
        stored = json.loads(path.read_text())
        parameters: dict[str, Any] = stored["parameters"]
        damaged = fingerprint(parameters) != stored["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        damaged = True
    if damaged:
        raise UserError(
            f"{path}, which holds the parameters chosen for the images ingested last, is damaged or was edited. {AGAIN}"
        )
    return parameters


def check_never_chosen(path: Path, manifest: Path) -> None:
    """Raise UserError where images of one's own were ingested, but there is no choice for them.

    Args:
        path: of the choice, which is not there.
        manifest: of the images that were ingested last.
    """
    earlier = EarlierManifestDataset(filepath=str(manifest)).load()
    if (earlier is None and manifest.exists()) or (earlier is not None and "path" in earlier):
        what = "The images ingested last" if earlier is None else f"The images of {earlier['path']}"
        raise UserError(f"{what} were not ingested to the end, or {path} was removed. {AGAIN}")
