"""Resume a run from its own checkpoint, even if other runs were trained after it."""

import logging
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.trial import TRIAL

if TYPE_CHECKING:
    from ddpm_kedro.training.run import Checkpoint

logger = logging.getLogger(__name__)


class Resumption:
    """Make the checkpoint of the requested run the latest one, before the resume plan is made."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replace the latest checkpoint by the checkpoint of the requested run, on rank 0 first."""
        if node.short_name != "make_resume_plan":
            return {}
        from ddpm_kedro.distributed import World  # noqa: PLC0415  torch takes seconds

        world = World.current()
        checkpoint = self._arrange(catalog, inputs) if world.rank == 0 else None
        world.barrier()
        return {"resume_checkpoint": checkpoint if world.rank == 0 else catalog.load("resume_checkpoint")}

    def _arrange(self, catalog: DataCatalog, inputs: dict[str, Any]) -> "Checkpoint | None":
        """Return the checkpoint to make the resume plan from; on disk it replaces the latest one."""
        from ddpm_kedro.training.resume_plan import belongs_to  # noqa: PLC0415
        from ddpm_kedro.training.run import Run  # noqa: PLC0415

        run = Run.from_inputs(inputs)
        latest: Checkpoint | None = inputs["resume_checkpoint"]
        checkpoints: list[Any] = [catalog.get(name) for name in ("resume_checkpoint", "best_checkpoint")]
        if run.training.resume == "never":
            for folder in {path for dataset in checkpoints for path in dataset.retire(run.run_id)}:
                logger.info("The earlier checkpoints of this run are kept in %s", folder)
            return None
        if latest is not None and belongs_to(latest, run):
            return latest
        kept: Checkpoint | None
        kept, _ = (dataset.restore(run.run_id) for dataset in checkpoints)
        if kept is not None:
            logger.info("Run %s was trained before: it resumes from its own checkpoint.", run.run_id)
            return kept
        return None if TRIAL.trial is not None else latest  # trials are compared: none continues another
