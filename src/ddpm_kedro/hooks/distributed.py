"""One training in several processes, started by torchrun: who writes, and that all of them can reach each other."""

import logging
import os
import time
from datetime import timedelta
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Pipeline

from ddpm_kedro.errors import UserError
from ddpm_kedro.nothing import NOTHING

logger = logging.getLogger(__name__)
TRAINING = "model_training"
COMMAND = f"torchrun --nproc-per-node 2 -m ddpm_kedro --pipelines {TRAINING}"


class Unwritten(AbstractDataset[Any, Any]):
    """What is saved stays in this process; before anything is, and where nothing was due, what lies there is loaded."""

    def __init__(self, dataset: AbstractDataset[Any, Any]) -> None:
        self.dataset, self.kept = dataset, None

    def load(self) -> Any:
        """The latest that was saved here, else what the first process has written."""
        return self.dataset.load() if self.kept is None else self.kept

    def save(self, data: Any) -> None:
        """Keep the data, unless there is nothing to save."""
        if data is not NOTHING:
            self.kept = data

    def _exists(self) -> bool:
        return self.kept is not None or self.dataset.exists()

    def _describe(self) -> dict[str, Any]:
        return self.dataset._describe()


class Together:
    """Does nothing unless torchrun started this process."""

    def __init__(self) -> None:
        self.timeout = timedelta()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note how long to wait for the others."""
        self.timeout = timedelta(seconds=context.config_loader["parameters"]["training"]["process_timeout"])

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Meet the other processes; all but the first keep what they make to themselves."""
        if "RANK" not in os.environ:
            return
        if list(run_params["pipeline_names"] or ()) != [TRAINING]:
            if int(os.environ["RANK"]):  # the first says why: torchrun must not end it before
                time.sleep(10)
                raise SystemExit(1)
            raise UserError(
                f"torchrun is for training alone: {COMMAND}. Everything else takes one process: kedro run --pipelines …"
            )
        self._meet()
        if int(os.environ["RANK"]):
            for name in pipeline.all_outputs():
                catalog[name] = Unwritten(catalog[name])

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Part."""
        _part()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Part."""
        _part()

    def _meet(self) -> None:
        import torch  # noqa: PLC0415  takes seconds
        import torch.distributed as dist  # noqa: PLC0415

        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"  # decisions of the processes need not wait for their devices
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        try:
            dist.init_process_group(backend, timeout=self.timeout)
        except (dist.DistError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"The other processes of this training were not met at {where} within {self.timeout} "
                f"(MASTER_ADDR:MASTER_PORT; training.process_timeout): {first}"
            ) from error
        if dist.get_rank() == 0 and dist.get_world_size() > 1:
            logger.info("%d processes train together.", dist.get_world_size())


def is_rank_0() -> bool:
    """Whether this process speaks and writes: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _part() -> None:
    if "RANK" not in os.environ:
        return
    import torch.distributed as dist  # noqa: PLC0415

    if dist.is_initialized():
        dist.destroy_process_group()
