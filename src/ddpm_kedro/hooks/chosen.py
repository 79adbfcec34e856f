"""What a run has trained on images of one's own is what the next commands use."""

from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.together import first_process
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.images.source import place_of
from ddpm_kedro.parameters import Group, Parameters, check_parameters
from ddpm_kedro.provenance import redact, set_name

TRAINED = ("dataset", "images", "augmentation", "model", "diffusion", "optimizer", "training")
ALSO = {"dataset": {"download_folder", "sha256"}, "images": {"max_rejected_fraction"}, "training": {"initial_model"}}
"""What does not shape a training by its value alone, but makes the same command do the same."""


class Chosen:
    """Stores the parameters of a training before it begins."""

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters of a training on images of one's own."""
        checked = check_parameters(context.config_loader["parameters"])
        self.chosen = {} if checked.dataset.path is None else chosen_by(checked)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Let ingestion know what this run trains, if it trains."""
        trains = any(node.short_name == "train_model" for node in pipeline.nodes)
        if not trains or TRIAL.trial is not None:  # trials of a sweep vary what was chosen
            self.chosen = {}
        catalog.save("trained_parameters", self.chosen)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Store the choice: from here on there is a checkpoint that only these parameters continue."""
        if node.short_name == "train_model" and self.chosen and first_process():
            catalog.save("chosen_parameters", self.chosen)


def chosen_by(parameters: Parameters) -> dict[str, Any]:
    """Return what makes another command train the same, as plain data without secrets."""
    groups: dict[str, Group] = {name: getattr(parameters, name) for name in TRAINED}
    values = {
        name: group.model_dump(exclude=set(group.without_effect) - ALSO.get(name, set()))
        for name, group in groups.items()
    }
    place = place_of(parameters.dataset)
    use = {group: option for group, option in parameters.use.items() if option is not None and group != "experiment"}
    use["dataset"] = set_name(place)
    return {"use": use, **values, "dataset": redact(values["dataset"] | {"path": place})}
