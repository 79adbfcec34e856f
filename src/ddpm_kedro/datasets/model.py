"""Trained models on disk."""

from ddpm_kedro.atomic import replaced_folder
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import provenance_of, read_document, reading
from ddpm_kedro.models import TrainedModel, weights_fingerprint
from ddpm_kedro.models.trained import REMEDY


class ModelDataset(FileDataset[TrainedModel, TrainedModel]):
    """A folder with ``model.safetensors`` and the ``config.json`` that rebuilds the network.

    The whole folder is replaced at once: weights and configuration always belong together.
    """

    marker = "config.json"
    _remedy = REMEDY

    def load(self) -> TrainedModel:
        """Load the model on the CPU: see :meth:`TrainedModel.load`."""
        return TrainedModel.load(self._filepath, self._remedy)

    def save(self, data: TrainedModel) -> None:
        """Write the new folder beside the old one, then replace the old one."""
        with replaced_folder(self._filepath) as new:
            data.save(new)

    def fingerprint(self) -> str:
        """Return the id of the run that made the saved model."""
        with reading(self._filepath, self._remedy):
            return provenance_of(read_document(self._filepath / "config.json")).fingerprint


class InitialModelDataset(ModelDataset):
    """The model that training starts from, if ``training.initial_model`` names one."""

    _remedy = "training.initial_model names it: copy it again, or export it again where it was trained."

    def load(self) -> TrainedModel | None:  # type: ignore[override]  # Kedro asks no dataset for its type
        """Load the model on the CPU; return None if no folder is named, raise UserError if the folder has no model."""
        if self._named and not self._exists():
            raise UserError(
                f"training.initial_model: no model in {self._filepath}. The model.safetensors and config.json of this "
                "project belong there, as in data/runs/<run id>/model; from a folder in diffusers' format, "
                "`kedro run --pipelines import_model` makes them in data/06_models/imported_model."
            )
        return super().load() if self._named else None

    def fingerprint(self) -> str:
        """Return the fingerprint of the weights."""
        return weights_fingerprint(super().load().network.state_dict())
