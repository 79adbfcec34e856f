"""Decide which nodes of a pipeline have to run, from what was recorded when their outputs were made.

A node is up to date if its outputs on disk are unchanged and were made from the same parameters and inputs, and, for
sampling, evaluation, reports and the tasks of a trained model, by the same code.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Any

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ddpm_kedro.atomic import write_text
from ddpm_kedro.datasets.disk_state import DiskState, disk_state, is_stored
from ddpm_kedro.ingestion.source import locate
from ddpm_kedro.parameters import DatasetParameters, Group
from ddpm_kedro.provenance import fingerprint, redact
from ddpm_kedro.source_code import PACKAGE, source_fingerprint

FILE, FORMAT = ".node_records.json", "ddpm_kedro node records 1"
ANY_CODE = {"data_ingestion", "model_training", "import_model"}
"""Pipelines whose outputs are kept when their code changes: run ids, stores and checkpoints do not depend on it."""
NOT_REPRODUCIBLE = {"train_model", "download_images"}
"""Nodes whose outputs depend on more than their inputs: on earlier checkpoints, and on files of a source."""
READS_A_SOURCE = {"download_images"}
"""Nodes that are run to see whether their source has changed: what is downloaded already is not downloaded again."""
EARLIER_OUTPUTS = {"resume_checkpoint", "earlier_images"}
"""Datasets with which a node reads what it, or a later node, wrote before; compared as outputs, not as inputs."""
ORDER_ONLY = {("fit_feature_extractor", "sampling_report")}
"""Nodes, and inputs that only make them run after others."""
ALSO_COMPARED = {"export", "max_rejected_fraction"}
"""Parameters that the fingerprint excludes, although an output or a check depends on them."""
AGAIN = {"resume": "never", "renew": True}
"""Values of parameters that ask for something that may exist already."""


@dataclass(frozen=True)
class NodeRecord:
    """What a finished node was run with, and what it wrote.

    Attributes:
        key: hash of its parameters, inputs and code.
        outputs: state of each stored output, by the name of its dataset.
        identities: what the key of a node that uses the output contains.
    """

    key: str
    outputs: dict[str, DiskState]
    identities: dict[str, str]


Records = dict[str, NodeRecord]
"""The records of finished nodes, by the names of the nodes."""


def read_records(data_root: Path) -> Records:
    """Read the records of a data folder; a missing or damaged file, or one of another format, has none."""
    try:
        document = json.loads((data_root / FILE).read_text())
        if document["format"] != FORMAT:
            return {}
        return {name: _as_record(**values) for name, values in document["nodes"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write_records(data_root: Path, records: Records) -> None:
    """Replace the records of a data folder."""
    nodes = {name: vars(record) for name, record in records.items()}
    write_text(data_root / FILE, json.dumps({"format": FORMAT, "nodes": nodes}, indent=1) + "\n")


def _as_record(key: str, outputs: dict[str, list[str]], identities: dict[str, str]) -> NodeRecord:
    return NodeRecord(key, {name: DiskState(*state) for name, state in outputs.items()}, identities)


class NodeStates:
    """The nodes of a pipeline, compared with records.

    Args:
        records: records of earlier runs; :meth:`record` adds to them.
    """

    def __init__(self, pipeline: Pipeline, catalog: DataCatalog, records: Records) -> None:
        self.catalog, self.records = catalog, records
        self.producers = {output: node for node in pipeline.nodes for output in node.outputs}

    def dataset(self, name: str) -> Any:
        """Return a dataset of the catalog; one that is not in the catalog is kept in memory."""
        return self.catalog.get(name, fallback_to_runtime_pattern=True)

    def record(self, node: Node) -> None:
        """Record that a node has finished and its outputs are saved."""
        key, earlier = self.key(node), self.records.pop(node.name, None)
        states: dict[str, DiskState] = {}
        for name in self.stored_outputs(node):
            state = disk_state(self.catalog.get(name), None if earlier is None else earlier.outputs.get(name))
            if key is None or state is None:
                return
            states[name] = state
        if key is not None and states:
            coded = _depends_on_code(node)
            identities = {name: key if coded else state.checksum for name, state in states.items()}
            self.records[node.name] = NodeRecord(key, states, identities)

    def key(self, node: Node) -> str | None:
        """Return the hash of everything that the outputs of a node depend on; None if it cannot be known."""
        if not _is_of_this_package(node):
            return None
        parts: dict[str, Any] = {"code": source_fingerprint(node.func.__module__)} if _depends_on_code(node) else {}
        for name in inputs_of(node):
            if _is_parameters(name):
                parts[name] = _compared(self.catalog.load(name))
            elif not is_stored(self.dataset(name)):
                if name in self.producers:  # otherwise a hook provides it, such as a stop request
                    parts[name] = self.key(self.producers[name])
            else:
                parts[name] = self._identity(name)
        return None if None in parts.values() else fingerprint(parts)

    def stored_outputs(self, node: Node) -> list[str]:
        """Return the outputs that outlive the process."""
        return [name for name in node.outputs if is_stored(self.dataset(name))]

    def is_unchanged(self, name: str, state: DiskState) -> bool:
        """Return whether the content of a dataset is the recorded one."""
        current = disk_state(self.catalog.get(name), state)
        return current is not None and current.checksum == state.checksum

    def is_changed(self, node: Node) -> bool:
        """Return whether the parameters, inputs or code of a node are not the recorded ones, or cannot be known."""
        key = self.key(node)
        if key is None or any(_asks_again(self.catalog.load(name)) for name in node.inputs if _is_parameters(name)):
            return True
        if not self.stored_outputs(node):  # its key is part of the keys of the nodes that use its outputs
            return False
        return node.name not in self.records or self.records[node.name].key != key

    def is_damaged(self, node: Node) -> bool:
        """Return whether an output of a node is not what was recorded."""
        recorded = self.records[node.name].outputs if node.name in self.records else {}
        return not all(
            name in recorded and self.is_unchanged(name, recorded[name]) for name in self.stored_outputs(node)
        )

    def source_has_changed(self, node: Node) -> bool:
        """Return whether a node that reads a source of images would return other data than it has stored.

        Raises:
            UserError: if the source cannot be read.
        """
        found = node.func(*(self.catalog.load(name) for name in node.inputs))
        return _manifest(found) != _manifest(self.catalog.load(node.outputs[0]))

    def _identity(self, name: str) -> str | None:
        """Return what identifies the content of a dataset on disk; None if it cannot be known."""
        producer = self.producers.get(name)
        if producer is not None and producer.name in self.records:
            return self.records[producer.name].identities[name]
        for record in self.records.values():
            if name in record.outputs and self.is_unchanged(name, record.outputs[name]):
                return record.identities[name]
        state = disk_state(self.catalog.get(name))
        return None if state is None else state.checksum


def find_nodes_to_run(
    pipeline: Pipeline, catalog: DataCatalog, records: Records, other_inputs: Collection[str] = ()
) -> list[str]:
    """Return the names of the nodes that are not up to date, and of the nodes whose outputs in memory these need.

    The nodes after a changed node are changed, too. A lost or damaged output is made again from what made it, so that
    the nodes after it are not concerned, unless it depends on more than the inputs of its node.

    Args:
        other_inputs: datasets on disk that were made with other parameters than this run has: what uses them runs.
    """
    states = NodeStates(pipeline, catalog, records)
    changed, found = set[Node](), list[Node]()
    in_memory = {name for name in pipeline.outputs() if not is_stored(states.dataset(name))}
    for node in pipeline.nodes:
        parents = {states.producers[name] for name in inputs_of(node) if name in states.producers}
        new = bool(parents & changed or {*node.inputs} & {*other_inputs}) or states.is_changed(node)
        damaged = not new and states.is_damaged(node)
        if not new and node.short_name in NOT_REPRODUCIBLE:
            new = damaged or (node.short_name in READS_A_SOURCE and states.source_has_changed(node))
        if new:
            changed.add(node)
        if in_memory & {*node.outputs} or ((new or damaged) and (states.stored_outputs(node) or not node.outputs)):
            found.append(node)
    for node in found:  # the list grows
        makers = (states.producers.get(name) for name in node.inputs if not is_stored(states.dataset(name)))
        found += {maker for maker in makers if maker is not None and maker not in found}
    return [node.name for node in pipeline.nodes if node in found]


def inputs_of(node: Node) -> list[str]:
    """Return the inputs on which the outputs of a node depend."""
    return [name for name in node.inputs if name not in EARLIER_OUTPUTS and (node.short_name, name) not in ORDER_ONLY]


def _is_of_this_package(node: Node) -> bool:
    return getattr(node.func, "__module__", "").startswith(f"{PACKAGE.name}.pipelines.")


def _depends_on_code(node: Node) -> bool:
    return node.func.__module__.split(".")[2] not in ANY_CODE


def _is_parameters(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


def _compared(value: Any) -> Any:
    """Return the values of parameters that outputs depend on, without secrets."""
    if not isinstance(value, Group):
        return redact(_plain(value))
    fields = value.fingerprint_fields() | value.model_dump(mode="json", include=ALSO_COMPARED)
    if isinstance(value, DatasetParameters) and value.path is not None:  # the same images from every working folder
        fields["path"] = locate(value, missing_ok=True)
    return redact(fields)


def _asks_again(value: Any) -> bool:
    return any(getattr(value, name, None) == wanted for name, wanted in AGAIN.items())


def _manifest(data: Any) -> dict[str, Any]:
    """Return a manifest as plain data; its folder may be given relative to the working folder, or absolute."""
    manifest: dict[str, Any] = _plain(data)
    return manifest | {"folder": realpath(manifest.get("folder", ""))}


def _plain(data: Any) -> Any:
    """Return data as a JSON file would give it back."""
    return json.loads(json.dumps(data, default=str))
