"""Trials of a sweep: report the validation losses of a run, and stop it early if they are bad."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from ddpm_kedro.hooks.context import ContextHook

if TYPE_CHECKING:
    import optuna  # an extra

logger = logging.getLogger(__name__)
METRIC = "validation_loss"


class Trial(ContextHook):
    """Report a run to Optuna, inside of :meth:`of`.

    Attributes:
        run_id: id of the latest run.
        value: latest validation loss of that run, at ``images_seen``.
        pruned: whether that run was stopped early.
    """

    def __init__(self) -> None:
        self.trial: optuna.Trial | None = None

    @contextmanager
    def of(self, trial: "optuna.Trial") -> Iterator["Trial"]:
        """Report the run in this block as this trial."""
        self.trial, self.pruned, self.run_id = trial, False, ""
        self.images_seen, self.value = 0, float("nan")
        try:
            yield self
        finally:
            self.trial = None

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Remember the catalog, which holds the stop request."""
        self.catalog = catalog

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Report each new row, and request a stop if Optuna prunes the trial."""
        if dataset_name in {"checkpoint", "model"} and data:
            self.run_id = data.run_id
        if self.trial is None or dataset_name != "training_history":
            return
        for row in data:
            if row["images_seen"] > self.images_seen:
                self.images_seen, self.value = int(row["images_seen"]), row[METRIC]
                self.trial.report(self.value, self.images_seen)
        unfinished = self.images_seen < self.parameters["training"]["num_images"]
        if not self.pruned and unfinished and self.trial.should_prune():
            logger.info("Pruning this trial: its validation loss is %.4f, worse than earlier trials.", self.value)
            self.pruned = True
            self.catalog.load("stop_request").set()


TRIAL = Trial()
"""The hook that Kedro calls and a sweep uses."""
