"""Feature extractors on disk."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from ddpm_kedro.atomic import atomic_write, move, replaced_folder
from ddpm_kedro.datasets.base import LocalDataset, write_document
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import check_zip, provenance_of, read_document, reading
from ddpm_kedro.metrics.extractor import LENGTH, FeatureExtractor, LazyFeatureExtractor
from ddpm_kedro.metrics.fitting import SavedState, State
from ddpm_kedro.provenance import Provenance

logger = logging.getLogger(__name__)
STATE = "unfinished.pt"
AGAIN = "It is made again."


class FeatureExtractorDataset(LocalDataset[LazyFeatureExtractor, FeatureExtractor]):
    """A folder with ``weights.pt`` and ``config.json``, the extractor of the images evaluated last.

    Extractors of other images, or of other parameters, are kept beside it, in ``<folder>s/<fingerprint>/``. An
    extractor that is already there is neither fitted nor written again. A fit that was interrupted resumes from
    ``<folder>s/<fingerprint>/unfinished.pt``.
    """

    def load(self) -> FeatureExtractor:
        """Load the extractor to the CPU."""
        if not self._exists():
            raise UserError(f"No feature extractor in {self._filepath}; run `kedro run --pipelines evaluation` first.")
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            check_zip(self._filepath / "weights.pt")
            return FeatureExtractor.from_config(_config(self._filepath), self._filepath / "weights.pt")

    def save(self, data: LazyFeatureExtractor) -> None:
        """Use the extractor that is kept for these images; if there is none, fit and write one."""
        current = _made_by(self._filepath)
        kept = {path: made_by for path in sorted(self._kept.glob("*/")) if (made_by := _made_by(path))}
        accepted = {path: made_by for path, made_by in kept.items() if data.accepts(made_by)}
        if current is not None and data.accepts(current):
            accepted[self._filepath] = current
        chosen = max(accepted, key=lambda path: _preference(accepted[path], data.made_by), default=None)
        if chosen is not None:
            _report_length(accepted[chosen], data.made_by)
        if chosen != self._filepath:
            self._replace(current, chosen, data)

    def fingerprint(self) -> str:
        """Return the fingerprint of the saved extractor's provenance."""
        with reading(self._filepath, "`kedro run --pipelines evaluation` makes it again."):
            return provenance_of(_config(self._filepath)["made_by"]).fingerprint

    @property
    def _kept(self) -> Path:
        return self._filepath.with_name(f"{self._filepath.name}s")

    def _replace(self, current: Provenance | None, chosen: Path | None, data: LazyFeatureExtractor) -> None:
        """Keep the current extractor elsewhere, and put another one, kept or new, in its place."""
        extractor = data.read(self._saved_state(data.made_by)) if chosen is None else None
        if current is not None:
            shutil.rmtree(self._kept / current.fingerprint, ignore_errors=True)
            move(self._filepath, self._kept / current.fingerprint)
        with replaced_folder(self._filepath) as new:
            if extractor is None:
                assert chosen is not None
                shutil.copytree(chosen, new, dirs_exist_ok=True)
            else:
                torch.save(extractor.state(), new / "weights.pt")
                write_document(new / "config.json", extractor.config())
        shutil.rmtree(chosen or self._kept / data.made_by.fingerprint, ignore_errors=True)

    def _saved_state(self, made_by: Provenance) -> SavedState:
        """Return functions that load and save the state of an unfinished fit."""
        path = self._kept / made_by.fingerprint / STATE

        def save(state: State) -> None:
            with atomic_write(path) as file:
                torch.save(state, file)

        return SavedState(lambda: _load_state(path), save)

    def _exists(self) -> bool:
        return (self._filepath / "config.json").exists()


def _config(folder: Path) -> dict[str, Any]:
    return read_document(folder / "config.json")


def _made_by(folder: Path) -> Provenance | None:
    """Return the provenance of an extractor; None without an extractor, or for a damaged one."""
    if not (folder / "config.json").exists():
        return None
    try:
        with reading(folder, AGAIN):
            check_zip(folder / "weights.pt")
            return provenance_of(_config(folder)["made_by"])
    except UserError as error:
        logger.warning("%s", error)
        return None


def _load_state(path: Path) -> State | None:
    if not path.exists():
        return None
    try:
        with reading(path, "The fit starts from scratch."):
            check_zip(path)
            state: State = torch.load(path, map_location="cpu", weights_only=True)
            return state
    except UserError as error:
        logger.warning("%s", error)
        return None


def _preference(made_by: Provenance, requested: Provenance) -> tuple[bool, int]:
    """Prefer an extractor with the requested length, then the longest fit."""
    return made_by == requested, _length(made_by)


def _length(made_by: Provenance) -> int:
    return int(made_by.parameters.get("evaluation", {}).get(LENGTH, 0))


def _report_length(used: Provenance, requested: Provenance) -> None:
    if used != requested:
        logger.info(
            "The feature extractor kept for these images is used; it was fitted with %s images, not "
            "evaluation.fit_images = %s. evaluation.refit=true fits it again.",
            f"{_length(used):,}",
            f"{_length(requested):,}",
        )
