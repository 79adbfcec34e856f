"""Goes on from where an earlier run of the same parameters stood, though other runs came in between."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)


class Resumption:
    """Puts the kept checkpoint of a run back in its place before training looks at it."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any]) -> dict[str, Any]:
        """Give training the checkpoint of its own run; other hooks see it, too, since they get the same inputs."""
        if node.short_name != "train_model":
            return {}
        from ddpm_kedro.training.run import Run  # noqa: PLC0415  torch takes seconds

        run, latest = Run.from_inputs(inputs), inputs["resume_checkpoint"]
        if latest is not None and latest.run_id == run.run_id:
            return {}
        dataset: Any = catalog.get("resume_checkpoint")
        kept = dataset.restore(run.run_id)
        if kept is None:
            return {}
        logger.info("Run %s was trained before: its checkpoint is taken up again.", run.run_id)
        inputs["resume_checkpoint"] = kept
        return {"resume_checkpoint": kept}
