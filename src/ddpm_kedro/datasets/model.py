"""A trained model on disk."""

import json

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from ddpm_kedro.datasets.atomic import replaced_folder
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.datasets.tensors import write_tensors
from ddpm_kedro.models import TrainedModel, weights_fingerprint
from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import Provenance


class ModelDataset(FileDataset[TrainedModel, TrainedModel]):
    """A folder with ``model.safetensors`` and the ``config.json`` that rebuilds the network.

    The whole folder is replaced at once: weights and configuration always belong together.
    """

    marker = "config.json"

    def load(self) -> TrainedModel:
        """The model, on the CPU.

        Raises:
            UserError: where there is none, or the files do not fit together.
        """
        if not self._exists():
            raise UserError(
                f"No trained model in {self._filepath}; run `kedro run` first, which trains and exports one."
            )
        try:
            config = json.loads((self._filepath / "config.json").read_text())
            return TrainedModel.from_config(config, load_file(self._filepath / "model.safetensors"))
        except (KeyError, TypeError, ValueError, ValidationError, RuntimeError, SafetensorError, OSError) as error:
            raise UserError(
                f"The model in {self._filepath} cannot be read: {type(error).__name__}: {str(error).splitlines()[0]}. "
                "`kedro run --pipelines model_training` exports it again from the checkpoint."
            ) from error

    def save(self, data: TrainedModel) -> None:
        """Write beside the old folder, then take its place."""
        with replaced_folder(self._filepath) as new:
            write_tensors(data.network.state_dict(), new / "model.safetensors")
            (new / "config.json").write_text(json.dumps(data.config(), indent=2) + "\n")

    def fingerprint(self) -> str:
        """That of what made the saved model: the id of its run."""
        config = json.loads((self._filepath / "config.json").read_text())
        return Provenance(config["parameters"], config["inputs"]).fingerprint


class InitialModelDataset(ModelDataset):
    """The model that a training starts from, where ``training.initial_model`` names one."""

    def load(self) -> TrainedModel | None:  # type: ignore[override]  # Kedro asks no dataset for its type
        """The model on the CPU, or None.

        Raises:
            UserError: where the folder holds none.
        """
        if self._named and not self._exists():
            raise UserError(
                f"training.initial_model: no model in {self._filepath}. The model.safetensors and config.json of this "
                "project belong there, as in data/runs/<run id>/model; from a folder in diffusers' format, "
                "`kedro run --pipelines import_model` makes them in data/06_models/imported_model."
            )
        return super().load() if self._named else None

    def fingerprint(self) -> str:
        """That of the weights."""
        return weights_fingerprint(super().load().network.state_dict())
