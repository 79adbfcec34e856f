"""Goes on from where an earlier run of the same parameters stood, though other runs came in between."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from ddpm_kedro.hooks.trial import TRIAL

logger = logging.getLogger(__name__)


class Resumption:
    """Puts the kept checkpoint of a run back in its place before training looks at it."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> dict[str, Any]:
        """Give training the checkpoint of its own run; other hooks see it, too, since they get the same inputs."""
        if node.short_name != "train_model":
            return {}
        from ddpm_kedro.distributed import World  # noqa: PLC0415  torch takes seconds

        processes = World.current()
        if processes.rank == 0:
            self._arrange(catalog, inputs)
        processes.wait()
        if processes.rank:  # what the first has arranged
            inputs["resume_checkpoint"] = catalog.load("resume_checkpoint")
        return {"resume_checkpoint": inputs["resume_checkpoint"]}

    def _arrange(self, catalog: DataCatalog, inputs: dict[str, Any]) -> None:
        """Put the checkpoint that this run is to go on from in its place."""
        from ddpm_kedro.training.resume_plan import ResumePlan  # noqa: PLC0415
        from ddpm_kedro.training.run import Run  # noqa: PLC0415

        run, latest = Run.from_inputs(inputs), inputs["resume_checkpoint"]
        start = ResumePlan.of(run, latest) if latest is not None else None
        checkpoints: list[Any] = [catalog.get(name) for name in ("resume_checkpoint", "best_checkpoint")]
        if run.training.resume == "never":
            for folder in {path for each in checkpoints for path in each.retire(run.run_id)}:
                logger.info("The checkpoints of before are kept in %s", folder)
            inputs["resume_checkpoint"] = None
        elif start is None or start.other is not None:
            kept, _ = (each.restore(run.run_id) for each in checkpoints)
            if kept is not None:
                logger.info("Run %s was trained before: its checkpoint is taken up again.", run.run_id)
                inputs["resume_checkpoint"] = kept
            elif TRIAL.trial is not None:  # trials are compared: each is a training of its own
                inputs["resume_checkpoint"] = None
