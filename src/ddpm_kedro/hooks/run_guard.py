"""Guards a run: checks before it, and stops that lose nothing."""

import logging
import os
import signal
from collections.abc import Callable
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.errors import DivergedError, UserError
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.parameters import Parameters
from ddpm_kedro.provenance import differences, redact

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMPUTING = ("params:training", "params:sampling")
DESCRIBES_A_MODEL = ("model", "diffusion")
Handler = Callable[[int, FrameType | None], Any] | int | None


class RunGuard:
    """One object a process; everything it knows belongs to the run at hand."""

    def __init__(self) -> None:
        self.stop = Event()
        self.signal = 0
        self.training = False
        self.parameters: dict[str, Any] = {}
        self.before: dict[int, Handler] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters."""
        self.parameters = redact(context.config_loader["parameters"])  # printed

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Refuse a model of another configuration; listen for signals."""
        self._print_parameters(pipeline)
        if any(name in pipeline.inputs() for name in COMPUTING):
            self._choose_algorithms()
            self._say_why_there_is_no_gpu(pipeline)
        if "model" in pipeline.inputs():
            self._check_model(catalog)
        self.stop, self.signal, self.training = Event(), 0, False
        catalog.save("stop_request", self.stop)
        if current_thread() is main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup asks
            self.before = {number: signal.signal(number, self._on_signal) for number in heard}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Only training can stop at a point of its own choosing."""
        self.training = "stop_request" in node.inputs

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """A stop ends the process once a checkpoint is saved: a model half trained is not exported.

        Between two checkpoints ``data`` is empty: nothing was saved, and training has yet to notice the stop.
        """
        if dataset_name == "checkpoint" and data and self.stop.is_set():
            seen = f"{data.images_seen:,}"
            logger.info("Stopped after %s images; the checkpoint is saved, and the same command goes on from it.", seen)
            self._give_signals_back()
            raise SystemExit(128 + self.signal)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Listen no more."""
        self._give_signals_back()

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: DataCatalog) -> None:
        """Listen no more, and keep the batch with which a training went wrong.

        Kedro calls ``on_node_error`` for a generator's beginning alone.
        """
        self._give_signals_back()
        if isinstance(error, DivergedError) and is_rank_0():
            catalog.save("diverged_batch", error.batch)
            dataset: Any = catalog.get("diverged_batch")
            logger.error("The batch of that step is kept in %s", dataset._filepath)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.training and not self.stop.is_set():
            self.signal = number
            self.stop.set()
            return
        before = self.before.get(number)
        if callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    def _give_signals_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _print_parameters(self, pipeline: Pipeline) -> None:
        """One line a group that this pipeline uses."""
        for name in Parameters.model_fields:
            values = self.parameters[name]
            if name == "use" or f"params:{name}" in pipeline.inputs():
                logger.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in values.items()))

    def _choose_algorithms(self) -> None:
        """Deterministic ones where asked for (cuBLAS reads its part when it is first used), and fast ones."""
        import torch  # noqa: PLC0415  takes seconds

        from ddpm_kedro.hardware import keep_freed_memory  # noqa: PLC0415

        wanted = self.parameters["training"]["deterministic"]
        if wanted:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(wanted)
        keep_freed_memory()
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # as convolutions have it by default

    def _say_why_there_is_no_gpu(self, pipeline: Pipeline) -> None:
        """Once a run, where a GPU would be used if there were one."""
        computing = [name.removeprefix("params:") for name in COMPUTING if name in pipeline.inputs()]
        if not any(self.parameters[name]["device"] == "auto" for name in computing):
            return
        from ddpm_kedro.hardware import choose_hardware, gpu_problem  # noqa: PLC0415  torch takes seconds

        if choose_hardware("auto", "auto").device.type == "cpu":
            logger.info("%s The CPU computes.", gpu_problem())

    def _check_model(self, catalog: DataCatalog) -> None:
        model = catalog.load("model")
        if model.imported:
            return
        now = {name: self.parameters[name] for name in DESCRIBES_A_MODEL}
        then = {name: model.made_by.parameters[name] for name in now}
        if changed := differences(then, now):
            raise UserError(
                f"The trained model was made with another configuration: {'; '.join(changed)}. Give the parameters it "
                "was trained with (such as --params use.experiment=…), or train one with these: kedro run."
            )
