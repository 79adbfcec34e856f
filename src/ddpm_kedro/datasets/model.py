"""A trained model on disk."""

import json

from safetensors.torch import load_file

from ddpm_kedro.atomic import replaced_folder
from ddpm_kedro.datasets.base import FileDataset
from ddpm_kedro.datasets.reading import file_checksum, provenance_of, read_document, reading, seal
from ddpm_kedro.datasets.tensors import write_tensors
from ddpm_kedro.errors import UserError
from ddpm_kedro.models import TrainedModel, weights_fingerprint

WEIGHTS_CHECKSUM = "weights_sha256"


class ModelDataset(FileDataset[TrainedModel, TrainedModel]):
    """A folder with ``model.safetensors`` and the ``config.json`` that rebuilds the network.

    The whole folder is replaced at once: weights and configuration always belong together.
    """

    marker = "config.json"
    _remedy = "`kedro run --pipelines model_training` exports it again from the checkpoint."

    def load(self) -> TrainedModel:
        """The model, on the CPU.

        Raises:
            UserError: where there is none, or the files do not fit together.
        """
        if not self._exists():
            raise UserError(
                f"No trained model in {self._filepath}; run `kedro run` first, which trains and exports one."
            )
        with reading(self._filepath, self._remedy):
            config, weights = read_document(self._filepath / "config.json"), self._filepath / "model.safetensors"
            if config.get(WEIGHTS_CHECKSUM) not in {None, file_checksum(weights)}:  # earlier versions wrote none
                raise UserError(f"the content of {weights.name} is not that of its checksum in config.json")
            return TrainedModel.from_config(config, load_file(weights))

    def save(self, data: TrainedModel) -> None:
        """Write beside the old folder, then take its place."""
        with replaced_folder(self._filepath) as new:
            write_tensors(data.network.state_dict(), new / "model.safetensors")
            config = data.config() | {WEIGHTS_CHECKSUM: file_checksum(new / "model.safetensors")}
            (new / "config.json").write_text(json.dumps(seal(config), indent=2) + "\n")

    def fingerprint(self) -> str:
        """That of what made the saved model: the id of its run."""
        with reading(self._filepath, self._remedy):
            return provenance_of(read_document(self._filepath / "config.json")).fingerprint


class InitialModelDataset(ModelDataset):
    """The model that a training starts from, where ``training.initial_model`` names one."""

    _remedy = "training.initial_model names it: copy it again, or export it again where it was trained."

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
