"""Log training runs to Weights & Biases, to compare them.

Nodes and datasets do not know W&B. Catalog entries say how they are logged, by ``metadata: {track: …}``: ``history``
(rows of values), ``pictures`` (figures), ``summary`` (metrics), or ``artifact`` (a folder).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from ddpm_kedro.datasets.base import local_copy
from ddpm_kedro.files import reason_of
from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.hooks.wandb_run import WandbRun, choose_mode
from ddpm_kedro.provenance import redact

if TYPE_CHECKING:
    from ddpm_kedro.training.resume_plan import ResumePlan

logger = logging.getLogger(__name__)


class Tracking(ContextHook):
    """Log a training to W&B while it runs. A problem with W&B gives one warning and never stops the training."""

    run: WandbRun | None
    tracked: dict[str, tuple[str, Any]]
    figures: dict[str, Any]

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Find the catalog entries to log."""
        self.tracked, self.figures, self.run = {}, {}, None
        for name in catalog:
            dataset: Any = catalog.get(name)
            if kind := (getattr(dataset, "metadata", None) or {}).get("track"):
                self.tracked[name] = (kind, dataset)

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Start or resume the W&B run of a training."""
        if node.short_name != "train_model" or not is_rank_0():
            return
        plan: ResumePlan = inputs["resume_plan"]
        if not plan.finished:
            with self._warn_on_failure():
                self._start(plan)

    def _start(self, plan: "ResumePlan") -> None:
        mode = choose_mode(self.parameters["tracking"]["mode"])
        if mode == "disabled":
            return
        self.run = WandbRun(redact(self.parameters), self.data_root / "wandb", self.figures)
        resumed = None if plan.checkpoint is None else plan.checkpoint.images_seen
        self.run.start(plan.run.record.tracking_id or plan.run.run_id, resumed, mode)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Log the data of a catalog entry that is marked for tracking."""
        kind, dataset = self.tracked.get(dataset_name, ("", None))
        if kind == "pictures" and data:
            self.figures[dataset_name] = data  # kept until the next row of the history is logged, together with it
        elif kind and self.run is not None:
            with self._warn_on_failure():
                self._log(kind, dataset_name, dataset, data)

    def _log(self, kind: str, name: str, dataset: Any, data: Any) -> None:
        assert self.run is not None
        match kind:
            case "history":
                self.run.log_history(data)
            case "summary":
                self.run.log_summary({score.name: score.value for score in data.scores})
            case "artifact":
                with local_copy(dataset) as folder:
                    self.run.log_folder(name, folder)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Finish the W&B run."""
        self._finish(0)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Finish the W&B run as failed.

        If the user stopped the training, this is not called; W&B finishes the run when the process ends.
        """
        self._finish(1)

    def _finish(self, exit_code: int) -> None:
        if self.run is not None:
            with self._warn_on_failure():
                self.run.finish(exit_code)
        self.run = None

    @contextmanager
    def _warn_on_failure(self) -> Iterator[None]:
        """After any error, log one warning and stop tracking this run."""
        try:
            yield
        except Exception as error:
            logger.warning("W&B fails (%s). The run is not tracked.", reason_of(error))
            self.run = None
