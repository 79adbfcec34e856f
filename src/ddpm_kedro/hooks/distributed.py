"""Distributed training under torchrun: the processes join one group, and only rank 0 writes."""

import logging
import os
import time
from datetime import timedelta
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Pipeline

from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reason_of
from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.kedro_adapter import describe
from ddpm_kedro.nothing import NOTHING

logger = logging.getLogger(__name__)
TRAINING = "model_training"
COMMAND = f"torchrun --nproc-per-node 2 -m ddpm_kedro --pipelines {TRAINING}"


class UnwrittenDataset(AbstractDataset[Any, Any]):
    """A dataset of another rank than 0: saved data stays in this process; until then, rank 0's file is loaded."""

    def __init__(self, dataset: AbstractDataset[Any, Any]) -> None:
        self.dataset, self.data = dataset, None

    def load(self) -> Any:
        """Load the data saved last in this process, otherwise the file of rank 0."""
        return self.dataset.load() if self.data is None else self.data

    def save(self, data: Any) -> None:
        """Keep the data, unless there is nothing to save."""
        if data is not NOTHING:
            self.data = data

    def _exists(self) -> bool:
        return self.data is not None or self.dataset.exists()

    def _describe(self) -> dict[str, Any]:
        return describe(self.dataset)


class Distributed(ContextHook):
    """Join and leave the process group, if torchrun started this process."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Join the process group; ranks other than 0 write no files."""
        if "RANK" not in os.environ:
            return
        if list(run_params["pipeline_names"] or ()) != [TRAINING]:
            if int(os.environ["RANK"]):  # rank 0 reports the error: torchrun must not end it before
                time.sleep(10)
                raise SystemExit(1)
            raise UserError(
                f"torchrun is only for training: {COMMAND}. Run everything else in one process: kedro run --pipelines …"
            )
        self._join()
        if int(os.environ["RANK"]):
            for name in pipeline.all_outputs():
                catalog[name] = UnwrittenDataset(catalog[name])

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Leave the process group."""
        if "RANK" not in os.environ:
            return
        import torch.distributed as dist  # noqa: PLC0415  takes seconds

        if dist.is_initialized():
            dist.destroy_process_group()

    on_pipeline_error = after_pipeline_run

    def _join(self) -> None:
        import torch  # noqa: PLC0415  takes seconds
        import torch.distributed as dist  # noqa: PLC0415

        backend, timeout = "gloo", timedelta(seconds=self.parameters["training"]["process_timeout"])
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"  # a decision on the CPU does not wait for the GPU
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        try:
            dist.init_process_group(backend, timeout=timeout)
        except (dist.DistError, RuntimeError, ValueError) as error:
            raise UserError(
                f"The other processes of this training did not join at {where} within {timeout} "
                f"(MASTER_ADDR:MASTER_PORT; training.process_timeout): {reason_of(error)}"
            ) from error
        if dist.get_rank() == 0 and dist.get_world_size() > 1:
            logger.info("Distributed training in %d processes.", dist.get_world_size())


def is_rank_0() -> bool:
    """Return whether this process logs and writes: the only one, or rank 0 under torchrun."""
    return os.environ.get("RANK", "0") == "0"
