"""Trials of a sweep: report the validation losses of a run, and stop it early if they are bad."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

logger = logging.getLogger(__name__)
METRIC = "validation_loss"


class SweepTrial(Protocol):
    """The part of an Optuna trial that is used."""

    def report(self, value: float, step: int) -> None:
        """Report an intermediate value."""

    def should_prune(self) -> bool:
        """Return whether the other trials were better at this step."""


class Trial:
    """Report a run to Optuna, inside of :meth:`of`.

    Attributes:
        run_id: of the latest run.
        value: its latest validation loss, at ``images_seen``.
        pruned: whether it was stopped early.
    """

    def __init__(self) -> None:
        self.trial: SweepTrial | None = None
        self.catalog = DataCatalog()
        self.num_images, self.images_seen, self.value = 0, 0, float("nan")
        self.pruned, self.run_id = False, ""

    @contextmanager
    def of(self, trial: SweepTrial) -> Iterator["Trial"]:
        """Report the run in this block as this trial."""
        self.trial, self.pruned, self.run_id = trial, False, ""
        self.images_seen, self.value = 0, float("nan")
        try:
            yield self
        finally:
            self.trial = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the length of the run."""
        self.num_images = context.config_loader["parameters"]["training"]["num_images"]

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
        if not self.pruned and self.images_seen < self.num_images and self.trial.should_prune():
            logger.info("Pruning this trial: its validation loss is %.4f, worse than earlier trials.", self.value)
            self.pruned = True
            self.catalog.load("stop_request").set()


TRIAL = Trial()
"""The hook that Kedro calls and a sweep uses."""
