"""A run that is a trial of a sweep: its validation losses are reported, and it ends early where it promises little."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

logger = logging.getLogger(__name__)
FIGURE = "validation_loss"


class SweepTrial(Protocol):
    """What is needed of an Optuna trial."""

    def report(self, value: float, step: int) -> None:
        """A figure on the way."""

    def should_prune(self) -> bool:
        """Whether the others were better by now."""


class Trial:
    """Does nothing outside of :meth:`of`.

    Attributes:
        run_id: of the latest run.
        value: its latest validation loss, at ``images_seen``.
        pruned: whether it was asked to stop.
    """

    def __init__(self) -> None:
        self.trial: SweepTrial | None = None
        self.catalog = DataCatalog()
        self.num_images, self.images_seen, self.value = 0, 0, float("nan")
        self.pruned, self.run_id = False, ""

    @contextmanager
    def of(self, trial: SweepTrial) -> Iterator["Trial"]:
        """The run in this block is this trial."""
        self.trial, self.pruned, self.run_id = trial, False, ""
        self.images_seen, self.value = 0, float("nan")
        try:
            yield self
        finally:
            self.trial = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the length of the run."""
        self.num_images = context.config_loader["parameters"]["training"]["num_images"]

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Note where a stop is asked for."""
        self.catalog = catalog

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Report each new row, and ask the training to stop where the trial is hopeless."""
        if dataset_name in {"checkpoint", "model"} and data:
            self.run_id = data.run_id
        if self.trial is None or dataset_name != "training_history":
            return
        for row in data:
            if row["images_seen"] > self.images_seen:
                self.images_seen, self.value = int(row["images_seen"]), row[FIGURE]
                self.trial.report(self.value, self.images_seen)
        if not self.pruned and self.images_seen < self.num_images and self.trial.should_prune():
            logger.info("This trial is ended early: its validation loss of %.4f promises little.", self.value)
            self.pruned = True
            self.catalog.load("stop_request").set()


TRIAL = Trial()
"""The one that Kedro calls, for whoever sweeps."""
