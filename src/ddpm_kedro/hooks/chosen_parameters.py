"""Store the parameters of a training on your own images for the next commands."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.hooks.node_records import RECORDS
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.ingestion.source import locate
from ddpm_kedro.parameters import Group, Parameters, check_parameters
from ddpm_kedro.provenance import fingerprint, redact, set_name

TRAINED = ("dataset", "images", "augmentation", "model", "diffusion", "optimizer", "training")
ALSO = {"dataset": {"download_folder", "sha256"}, "images": {"max_rejected_fraction"}, "training": {"initial_model"}}
"""Parameters that are stored although the fingerprint excludes them: the next command needs them to do the same."""


class ChosenParameters(ContextHook):
    """Store the parameters of a training on your own images before it starts."""

    chosen: dict[str, Any]
    trains: bool

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Give ingestion the parameters of this training, or the stored ones if this run does not change them."""
        checked = check_parameters(self.parameters)
        self.chosen = {} if checked.dataset.path is None else select_parameters(checked)
        requested = RECORDS.requested or pipeline  # also if the training is up to date
        self.trains = any(node.short_name == "train_model" for node in requested.nodes) and TRIAL.trial is None
        catalog.save("trained_parameters", self.chosen if self.trains else self._stored(catalog))

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Store the parameters: only these resume from the checkpoints of this training."""
        if node.short_name == "train_model" and self.trains and self.chosen and is_rank_0():
            catalog.save("chosen_parameters", self.chosen)
            RECORDS.note("chosen_parameters", catalog)

    def _stored(self, catalog: DataCatalog) -> dict[str, Any]:
        """Return the stored parameters if this run has the same ones."""
        try:
            stored: dict[str, Any] = catalog.load("chosen_parameters") if catalog.exists("chosen_parameters") else {}
        except DatasetError:  # damaged; this run does not need it
            return {}
        compared = [stored, self.chosen]
        if TRIAL.trial is not None:  # the trials of a sweep vary the stored parameters
            compared = [each.get("dataset", {}) for each in compared]
        return stored if len(set(map(fingerprint, compared))) == 1 else {}


def select_parameters(parameters: Parameters) -> dict[str, Any]:
    """Return the parameters with which another command trains the same, as plain data without secrets."""
    groups: dict[str, Group] = {name: getattr(parameters, name) for name in TRAINED}
    values = {
        name: group.model_dump(exclude=group.excluded_from_fingerprint() - ALSO.get(name, set()))
        for name, group in groups.items()
    }
    place = locate(parameters.dataset)
    use = {group: option for group, option in parameters.use.items() if option is not None and group != "experiment"}
    use["dataset"] = set_name(place)
    return {"use": use, **values, "dataset": redact(values["dataset"] | {"path": place})}
