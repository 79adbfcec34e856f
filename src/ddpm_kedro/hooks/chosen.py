"""What a run has trained on images of one's own is what the next commands use."""

from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.ingestion.source import locate
from ddpm_kedro.parameters import Group, Parameters, check_parameters
from ddpm_kedro.provenance import fingerprint, redact, set_name

TRAINED = ("dataset", "images", "augmentation", "model", "diffusion", "optimizer", "training")
ALSO = {"dataset": {"download_folder", "sha256"}, "images": {"max_rejected_fraction"}, "training": {"initial_model"}}
"""What does not shape a training by its value alone, but makes the same command do the same."""


class Chosen:
    """Stores the parameters of a training before it begins."""

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}
        self.trains = False

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters of a training on images of one's own."""
        checked = check_parameters(context.config_loader["parameters"])
        self.chosen = {} if checked.dataset.path is None else chosen_by(checked)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Let ingestion know what this run trains, or what was trained if nothing else was asked for since."""
        self.trains = any(node.short_name == "train_model" for node in pipeline.nodes) and TRIAL.trial is None
        catalog.save("trained_parameters", self.chosen if self.trains else self._stored(catalog))

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Store the choice: from here on there is a checkpoint that only these parameters continue."""
        if node.short_name == "train_model" and self.trains and self.chosen and is_rank_0():
            catalog.save("chosen_parameters", self.chosen)

    def _stored(self, catalog: DataCatalog) -> dict[str, Any]:
        """Return the stored choice, if this run neither changes it nor needs another one."""
        try:
            stored: dict[str, Any] = catalog.load("chosen_parameters") if catalog.exists("chosen_parameters") else {}
        except DatasetError:  # it is damaged, and this run does without
            return {}
        if TRIAL.trial is not None:  # trials of a sweep vary what was chosen
            compared = [each.get("dataset") for each in (stored, self.chosen)]
        else:
            compared = [stored, self.chosen]
        return stored if len(set(map(fingerprint, compared))) == 1 else {}


def chosen_by(parameters: Parameters) -> dict[str, Any]:
    """Return what makes another command train the same, as plain data without secrets."""
    groups: dict[str, Group] = {name: getattr(parameters, name) for name in TRAINED}
    values = {
        name: group.model_dump(exclude=set(group.excluded_from_fingerprint) - ALSO.get(name, set()))
        for name, group in groups.items()
    }
    place = locate(parameters.dataset)
    use = {group: option for group, option in parameters.use.items() if option is not None and group != "experiment"}
    use["dataset"] = set_name(place)
    return {"use": use, **values, "dataset": redact(values["dataset"] | {"path": place})}
