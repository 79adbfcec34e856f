"""Keep the batch at which a training diverged."""

import logging

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from ddpm_kedro.errors import DivergedError
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.kedro_adapter import location

logger = logging.getLogger(__name__)


class DivergedBatch:
    """Save the input of the first step whose loss is NaN or infinite."""

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: DataCatalog) -> None:
        """Save the batch. Kedro calls ``on_node_error`` only for the start of a generator."""
        if isinstance(error, DivergedError) and is_rank_0():
            catalog.save("diverged_batch", error.batch)
            logger.error("The batch of that step is kept in %s", location(catalog.get("diverged_batch")))
