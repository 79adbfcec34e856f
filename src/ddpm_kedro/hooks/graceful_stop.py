"""Stop a training on a signal without losing work."""

import logging
import signal
from collections.abc import Callable
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], Any] | int | None


class GracefulStop:
    """Let a training save a checkpoint before a signal ends the process.

    The first signal during training sets ``stop_request``. A second one, or one outside of training, ends the process
    at once.
    """

    def __init__(self) -> None:
        self.stop, self.signal, self.training = Event(), 0, False
        self.earlier_handlers: dict[int, Handler] = {}

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Put ``stop_request`` into the catalog, and handle signals."""
        self.stop, self.signal, self.training = Event(), 0, False
        catalog.save("stop_request", self.stop)
        if current_thread() is main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # set by nohup
            self.earlier_handlers = {number: signal.signal(number, self._on_signal) for number in handled}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Note whether the node looks at ``stop_request``."""
        self.training = "stop_request" in node.inputs

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """End the process after a stop, once a checkpoint is saved; no later node runs.

        If ``data`` is empty, no checkpoint was written: training has not noticed the stop yet.
        """
        if dataset_name == "checkpoint" and data and self.stop.is_set():
            seen = f"{data.images_seen:,}"
            logger.info("Stopped after %s images. The checkpoint is saved; the same command resumes from it.", seen)
            self.after_pipeline_run()
            raise SystemExit(128 + self.signal)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Restore the earlier signal handlers."""
        for number, handler in self.earlier_handlers.items():
            signal.signal(number, handler)
        self.earlier_handlers = {}

    on_pipeline_error = after_pipeline_run

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.training and not self.stop.is_set():
            self.signal = number
            self.stop.set()
            return
        earlier = self.earlier_handlers.get(number)
        if callable(earlier):
            earlier(number, frame)
        else:
            raise SystemExit(128 + number)
