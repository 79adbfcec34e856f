"""Distributed training under torchrun: the processes join one group, and only rank 0 writes."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Pipeline

from ddpm_kedro.errors import UserError
from ddpm_kedro.files import reason_of
from ddpm_kedro.kedro_adapter import describe
from ddpm_kedro.nothing import NOTHING

Result = TypeVar("Result")
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


class Distributed:
    """Let only rank 0 write, if torchrun started this process; leave the process group after the run."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Replace the outputs of ranks other than 0 by datasets that write no files."""
        if not is_rank_0():
            for name in pipeline.all_outputs():
                catalog[name] = UnwrittenDataset(catalog[name])

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Leave the process group."""
        leave_processes()

    on_pipeline_error = after_pipeline_run


def join_processes(pipeline_names: Sequence[str] | None, timeout: float) -> None:
    """Join the process group, if torchrun started this process.

    Args:
        timeout: seconds to wait for the other processes.

    Raises:
        UserError: if other pipelines than the training are requested, or the other processes do not join.
    """
    if "RANK" not in os.environ:
        return
    if list(pipeline_names or ()) != [TRAINING]:
        if not is_rank_0():  # rank 0 reports the error: torchrun must not end it before
            time.sleep(10)
            raise SystemExit(1)
        raise UserError(
            f"torchrun is only for training: {COMMAND}. Run everything else in one process: kedro run --pipelines …"
        )
    import torch  # noqa: PLC0415  takes seconds
    import torch.distributed as dist  # noqa: PLC0415

    backend, wait = "gloo", timedelta(seconds=timeout)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"  # a decision on the CPU does not wait for the GPU
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        dist.init_process_group(backend, timeout=wait)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The other processes of this training did not join at {where} within {wait} "
            f"(MASTER_ADDR:MASTER_PORT; training.process_timeout): {reason_of(error)}"
        ) from error
    if dist.get_rank() == 0 and dist.get_world_size() > 1:
        logger.info("Distributed training in %d processes.", dist.get_world_size())


def leave_processes() -> None:
    """Leave the process group, if this process is in one."""
    if "RANK" not in os.environ:
        return
    import torch.distributed as dist  # noqa: PLC0415  takes seconds

    if dist.is_initialized():
        dist.destroy_process_group()


def from_rank_0(decide: Callable[[], Result]) -> Result:
    """Return what rank 0 decides; the other ranks, which may not see its files, wait for the decision."""
    if "RANK" not in os.environ:
        return decide()
    from ddpm_kedro.distributed import World  # noqa: PLC0415  torch takes seconds

    decided: Result = World.current().from_rank_0(decide() if is_rank_0() else None)
    return decided


def is_rank_0() -> bool:
    """Return whether this process logs and writes: the only one, or rank 0 under torchrun."""
    return os.environ.get("RANK", "0") == "0"
