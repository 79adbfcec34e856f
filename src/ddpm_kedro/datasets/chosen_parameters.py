"""The parameters stored for your own images; the next commands use them again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.source import locate
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters
from ddpm_kedro.parameters.earlier import convert_stored
from ddpm_kedro.provenance import fingerprint

Stored = dict[str, Any]
AGAIN = (
    "Ingest the images again (kedro run --pipelines data_ingestion --params use.dataset=…,dataset.path=…), or choose "
    "others (--params use.dataset=mnist5k)."
)


class ChosenParametersDataset(LocalDataset[Stored, Stored]):
    """Store parameters, the plan that chose them, and a fingerprint of both in a JSON file.

    The data has two parts. ``parameters`` are by group; empty for images that are not your own. ``plan`` says what the
    plan was made for; None if an earlier version of this project stored the parameters.
    """

    def load(self) -> Stored:
        """Return the parameters and their plan."""
        return read_stored(self._filepath)

    def save(self, data: Stored) -> None:
        """Replace the stored parameters."""
        document = {"parameters": data["parameters"], "plan": data["plan"]}
        write_text(self._filepath, json.dumps(document | {"fingerprint": fingerprint(document)}, indent=2) + "\n")


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


def read_stored(path: Path) -> Stored:
    """Return the stored parameters and their plan; raise UserError if the file is damaged."""
    try:
        stored = json.loads(path.read_text())
        found: Stored = {"parameters": stored["parameters"], "plan": stored.get("plan")}
        by_earlier_version = "plan" not in stored
        expected = fingerprint(found["parameters"] if by_earlier_version else found)
        damaged = expected != stored["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        damaged = True
    if damaged:
        raise UserError(
            f"{path} (the parameters chosen for the images ingested last) is damaged or was edited. {AGAIN}"
        )
    return {"parameters": convert_stored(found["parameters"]), "plan": found["plan"]}


def read_chosen(path: Path) -> dict[str, Any]:
    """Return the stored parameters; raise UserError if the file is damaged."""
    parameters: dict[str, Any] = read_stored(path)["parameters"]
    return parameters


def images_of(groups: Mapping[str, Any]) -> Any:
    """Return what decides which images parameters name: equal values name equal images.

    Args:
        groups: the groups dataset and images as plain data, also without parameters that do not affect the images.
    """
    dataset = DatasetParameters.model_validate({"download_folder": "", "sha256": None} | groups["dataset"])
    images = ImagesParameters.model_validate({"workers": None, "max_rejected_fraction": 0.0} | groups["images"])
    named = dataset.model_copy(update={"path": locate(dataset, missing_ok=True)})
    return named.fingerprint_fields(), images.fingerprint_fields()


def check_nothing_ingested(path: Path, manifest: Path) -> None:
    """Raise UserError if your own images were ingested last, but their parameters are not stored in ``path``."""
    earlier = EarlierManifestDataset(filepath=str(manifest)).load()
    if (earlier is None and manifest.exists()) or (earlier is not None and "path" in earlier):
        images = "The images ingested last" if earlier is None else f"The images of {earlier['path']}"
        raise UserError(f"{images} were not ingested completely, or {path} was removed. {AGAIN}")
