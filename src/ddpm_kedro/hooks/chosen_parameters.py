"""Keep the plan and the parameters of a training on your own images for the next commands."""

import logging
from typing import Any

import rich
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.hooks.node_records import RECORDS
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.ingestion.source import locate
from ddpm_kedro.parameters import Group, Parameters, check_parameters
from ddpm_kedro.planning.request import PlanRequest
from ddpm_kedro.planning.reuse import log_replaced
from ddpm_kedro.planning.table import plain_table, rich_table
from ddpm_kedro.provenance import redact, set_name

logger = logging.getLogger(__name__)
TRAINED = ("dataset", "images", "plan", "augmentation", "model", "diffusion", "optimizer", "training")
PLANNED = ("report_interval", "checkpoint_interval", "accumulation_steps", "activation_checkpointing")
ALSO = {
    "dataset": {"download_folder", "sha256"},
    "images": {"max_rejected_fraction"},
    "training": {"initial_model", *PLANNED},
}
"""Parameters that are stored although the fingerprint excludes them: the next command needs them to do the same."""


class ChosenParameters(ContextHook):
    """Give ingestion what a plan needs, show a new plan, and store the parameters of a training before it starts."""

    given: dict[str, Any]
    stored: dict[str, Any]
    chosen: dict[str, Any]

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters, and which of them are given."""
        super().after_context_created(context)
        loader: Any = context.config_loader
        self.given = loader.given()

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Give ingestion the parameters of this run and the stored plan."""
        checked = check_parameters(self.parameters)
        self.chosen = {} if checked.dataset.path is None else select_parameters(checked)
        self.stored = self._load(catalog)
        request = PlanRequest(self.parameters, self.given, self.stored, may_plan=TRIAL.trial is None)
        catalog.save("plan_request", request)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Show a new plan as a table."""
        if dataset_name != "chosen_parameters" or not data["plan"] or data == self.stored or not is_rank_0():
            return
        show(data["plan"]["table"])

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Store the parameters: only these resume from the checkpoints of this training."""
        if node.short_name != "train_model" or TRIAL.trial is not None or not self.chosen or not is_rank_0():
            return
        log_replaced(self.stored.get("parameters", {}), self.given)
        plan = self.stored.get("plan")
        evaluation = self.stored.get("parameters", {}).get("evaluation")
        parameters = self.chosen | ({"evaluation": evaluation} if evaluation else {})
        self.stored = {"parameters": parameters, "plan": plan and plan | {"in_use": True}}
        catalog.save("chosen_parameters", self.stored)
        RECORDS.note("chosen_parameters", catalog)

    def _load(self, catalog: DataCatalog) -> dict[str, Any]:
        """Return what is stored; empty if nothing is."""
        try:
            return dict(catalog.load("chosen_parameters")) if catalog.exists("chosen_parameters") else {}
        except DatasetError:  # damaged; this run does not need it
            return {}


def show(table: list[list[str]]) -> None:
    """Show the table of a plan: rich on a terminal, otherwise as plain lines."""
    if (console := rich.get_console()).is_terminal:
        console.print(rich_table(table, "The plan of this training"))
        return
    for line in ["The plan of this training:", *plain_table(table)]:
        logger.info("%s", line)


def select_parameters(parameters: Parameters) -> dict[str, Any]:
    """Return the parameters with which another command trains the same, as plain data without secrets."""
    groups: dict[str, Group] = {name: getattr(parameters, name) for name in TRAINED}
    values = {
        name: group.model_dump(mode="json", exclude=group.excluded_from_fingerprint() - ALSO.get(name, set()))
        for name, group in groups.items()
    }
    place = locate(parameters.dataset)
    use = {group: option for group, option in parameters.use.items() if option is not None and group != "experiment"}
    use["dataset"] = set_name(place)
    return {"use": use, **values, "dataset": redact(values["dataset"] | {"path": place})}
