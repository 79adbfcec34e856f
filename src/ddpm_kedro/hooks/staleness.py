"""Warn when a stored dataset was made with other parameters or inputs."""

import logging
from contextlib import suppress
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline

from ddpm_kedro.errors import UserError
from ddpm_kedro.hooks.preflight import MODEL_GROUPS
from ddpm_kedro.parameters import Group, check_parameters
from ddpm_kedro.provenance import Provenance, flatten

logger = logging.getLogger(__name__)
INPUTS = ("initial_model",)  # datasets that no run makes


class Staleness:
    """Warn once about each loaded dataset that was made with other inputs, or other parameters on the command line.

    Parameters that the command line does not name are not compared: an earlier command may have set them. Nothing runs
    again because of a warning.
    """

    parameters: dict[str, Any]
    catalog: DataCatalog
    warned: set[str]
    used: dict[str, Provenance]

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters that the command line sets, also through options."""
        self.parameters = named_parameters(context)

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Note the catalog, and forget the previous run."""
        self.catalog, self.warned, self.used = catalog, set(), {}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Forget a dataset that this run replaces."""
        self.used.pop(dataset_name, None)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Compare the provenance of a dataset with the parameters and inputs of this run.

        Raises:
            UserError: if it changed since this run loaded it first, such as shared images that were replaced.
        """
        made_by = getattr(data, "made_by", None)
        if not isinstance(made_by, Provenance):
            return
        if self.used.setdefault(dataset_name, made_by) != made_by:
            raise UserError(
                f"{dataset_name} on disk was replaced while this run used it: the results would mix old and new data. "
                "Run the same command again; it uses the new data."
            )
        if dataset_name in INPUTS or getattr(data, "imported", False):
            return
        changed = "; ".join(made_by.changes(self.parameters, inputs_on_disk(made_by, self.catalog)))
        if changed and changed not in self.warned:  # training and holdout images change together
            self.warned.add(changed)
            logger.warning(
                "%s on disk was made with other parameters or inputs: %s. `kedro run` makes it again.",
                dataset_name,
                changed,
            )


def named_parameters(context: KedroContext) -> dict[str, Any]:
    """Return the parameters that the command line sets, also through options."""
    checked = check_parameters(context.config_loader["parameters"])
    fields = flatten({name: group.fingerprint_fields() for name, group in checked if isinstance(group, Group)})
    given = dict(flatten(context.config_loader.runtime_params or {}))
    groups = {name.removeprefix("use.") for name in given if name.startswith("use.")}
    return {
        name: value
        for name, value in fields
        if name in given or "experiment" in groups or name.partition(".")[0] in groups
    }


def inputs_on_disk(made_by: Provenance, catalog: DataCatalog) -> dict[str, str]:
    """Return the fingerprints of the inputs of a dataset that are on disk now."""
    found: dict[str, str] = {}
    for name in made_by.inputs:
        dataset: Any = catalog.get(name)
        with suppress(UserError, DatasetError):  # a damaged file is reported when it is loaded
            if hasattr(dataset, "fingerprint") and dataset.exists():
                found[name] = dataset.fingerprint()
    return found


def find_other_inputs(pipeline: Pipeline, context: KedroContext, catalog: DataCatalog) -> set[str]:
    """Return the inputs on disk for which a run of the pipeline gives a warning or an error: it has to load them."""
    checked = check_parameters(context.config_loader["parameters"])
    model = {name: getattr(checked, name).fingerprint_fields() for name in MODEL_GROUPS}
    parameters = named_parameters(context) | dict(flatten(model))
    return {name for name in pipeline.inputs() - {*INPUTS} if _differs(catalog.get(name), parameters, catalog)}


def _differs(dataset: Any, parameters: dict[str, Any], catalog: DataCatalog) -> bool:
    """Return whether a dataset is damaged, or was made with other parameters or inputs."""
    if not hasattr(dataset, "fingerprint") or not dataset.exists():
        return False
    try:
        data = dataset.load()
    except (UserError, DatasetError):
        return True
    if getattr(data, "imported", False) or not hasattr(data, "made_by"):
        return False
    return bool(data.made_by.changes(parameters, inputs_on_disk(data.made_by, catalog)))
