"""Record finished nodes, so that a later run skips them while they are up to date."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.datasets.disk_state import disk_state
from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.up_to_date import NodeStates, read_records, write_records


class NodeRecords(ContextHook):
    """Record each node of a run when all its outputs are saved.

    Attributes:
        requested: the pipeline as it was requested, with the nodes that this run skips; None outside of a run.
    """

    states: NodeStates
    saved: dict[str, set[str]]

    def __init__(self) -> None:
        self.requested: Pipeline | None = None
        self.lock = RLock()  # ThreadRunner runs nodes in threads

    @contextmanager
    def of(self, requested: Pipeline) -> Iterator[None]:
        """Let hooks know the requested pipeline while the block runs: Kedro gives them the nodes that run."""
        earlier, self.requested = self.requested, requested
        try:
            yield
        finally:
            self.requested = earlier

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Read the records of earlier runs."""
        self.states, self.saved = NodeStates(pipeline, catalog, read_records(self.data_root)), {}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Record the generators before this node: they are finished, and no other hook says so."""
        for name in node.inputs:
            if name in self.states.producers:
                self._record(self.states.producers[name])

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Record a node with its last output; a generator saves its outputs many times."""
        with self.lock:
            saved = self.saved.setdefault(node.name, set())
            saved.add(dataset_name)
            if saved == {*node.outputs} and not inspect.isgeneratorfunction(node.func):
                self._record(node)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Record the generators at the end of the pipeline."""
        for node in pipeline.nodes:
            self._record(node)

    def note(self, dataset_name: str, catalog: DataCatalog) -> None:
        """Record that a hook, not a node, has replaced an output."""
        with self.lock:
            for record in self.states.records.values():
                if dataset_name in record.outputs and (state := disk_state(catalog.get(dataset_name))):
                    record.outputs[dataset_name] = state
            write_records(self.data_root, self.states.records)

    def _record(self, node: Node) -> None:
        """Record a finished node, once."""
        with self.lock:
            if self.saved.pop(node.name, None) and is_rank_0():
                self.states.record(node)
                write_records(self.data_root, self.states.records)


RECORDS = NodeRecords()
"""The hook that Kedro calls; the session tells it what was requested."""
