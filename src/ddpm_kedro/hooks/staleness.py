"""Says where something on disk was made from other parameters or inputs than those of now."""

import logging
from contextlib import suppress
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import Group, check_parameters
from ddpm_kedro.provenance import Provenance, flatten

logger = logging.getLogger(__name__)
GIVEN = ("initial_model",)  # not what a run makes, but what it is given


class Staleness:
    """One warning for each thing that is loaded and was made from other inputs, or parameters than this command gives.

    A parameter that the command line does not give is of no concern: it changes nothing that this command makes, and
    an earlier command may have given it. Nothing is run again: within a run the pipeline does that, and DVC where code
    has changed.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.catalog = DataCatalog()
        self.told: set[str] = set()
        self.used: dict[str, Provenance] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters of now."""
        checked = check_parameters(context.config_loader["parameters"])
        shaping = flatten({name: group.fingerprint_fields() for name, group in checked if isinstance(group, Group)})
        given = dict(flatten(context.config_loader.runtime_params or {}))
        groups = {name.removeprefix("use.") for name in given if name.startswith("use.")}
        self.parameters = {
            name: value
            for name, value in shaping
            if name in given or "experiment" in groups or name.partition(".")[0] in groups
        }

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Note what lies where."""
        self.catalog, self.told, self.used = catalog, set(), {}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Let what this run replaces be loaded again."""
        self.used.pop(dataset_name, None)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Compare what made it with what would make it now.

        Raises:
            UserError: where it is not what this run has loaded before, such as shared images that were replaced.
        """
        made_by = getattr(data, "made_by", None)
        if not isinstance(made_by, Provenance):
            return
        if self.used.setdefault(dataset_name, made_by) != made_by:
            raise UserError(
                f"{dataset_name} on disk was replaced while this run used it: its results would mix the two. The same "
                "command starts again with what is there now."
            )
        if dataset_name in GIVEN or getattr(data, "imported", False):
            return
        changed = "; ".join(made_by.changes(self.parameters, self._inputs(made_by)))
        if changed and changed not in self.told:  # training images and hold-out change together
            self.told.add(changed)
            logger.warning(
                "%s on disk is not what these parameters make: %s. `kedro run` makes everything anew that differs.",
                dataset_name,
                changed,
            )

    def _inputs(self, made_by: Provenance) -> dict[str, str]:
        """The fingerprints of its inputs as they are on disk, where they have one."""
        found: dict[str, str] = {}
        for name in made_by.inputs:
            dataset: Any = self.catalog.get(name)
            with suppress(UserError, DatasetError):  # of a damaged one: whoever loads it says so
                if hasattr(dataset, "fingerprint") and dataset.exists():
                    found[name] = dataset.fingerprint()
        return found
