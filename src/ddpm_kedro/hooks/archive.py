"""Copy the outputs of a finished run to ``data/runs/<run id>/``."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from ddpm_kedro.atomic import copy, write_text
from ddpm_kedro.datasets.base import local_copy
from ddpm_kedro.files import shown_path
from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.hooks.node_records import RECORDS
from ddpm_kedro.parameters import Parameters
from ddpm_kedro.provenance import Provenance, redact
from ddpm_kedro.run_log import keep_run_log

logger = logging.getLogger(__name__)
RECORD = "parameters.json"
"""The file that marks a run as finished."""


class Archive(ContextHook):
    """Copy outputs that are marked ``metadata: {archive: true}`` and were made by this run from its own model."""

    saved: dict[str, Provenance | None]

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Forget the previous run."""
        self.saved = {}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Remember what this run has saved, and its provenance."""
        made_by = getattr(data, "made_by", None)
        self.saved[dataset_name] = made_by if isinstance(made_by, Provenance) else None

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Copy the outputs of a training; ``parameters.json``, which marks the run as finished, is written last."""
        pipeline = RECORDS.requested or pipeline
        if not is_rank_0() or not {"train_model", "export_model"} <= {node.short_name for node in pipeline.nodes}:
            return
        self._add_skipped(pipeline, catalog)
        folder = self.data_root / "runs" / catalog.load("model").run_id
        record = folder / RECORD
        parameters = json.dumps(_parameters_of(redact(self.parameters), pipeline, record), indent=2)
        record.unlink(missing_ok=True)
        foreign = _foreign(self.saved)
        for name in sorted(pipeline.all_outputs() & self.saved.keys()):
            dataset: Any = catalog.get(name)
            if not _is_marked(dataset) or not dataset.exists():
                continue
            needed = pipeline.to_outputs(name)
            if foreign & needed.all_outputs() or any(_is_marked(catalog.get(each)) for each in needed.inputs()):
                logger.warning("%s is not kept: it was not made from the outputs of run %s.", name, folder.name)
            else:
                with local_copy(dataset) as path:
                    copy(path, folder / path.name)
        write_text(record, f"{parameters}\n")
        keep_run_log(folder)
        logger.info("This run is kept in %s", shown_path(folder))

    def complete(self, pipeline: Pipeline, context: KedroContext, catalog: DataCatalog) -> None:
        """Copy the outputs of a training that is up to date, unless they are kept already."""
        if is_rank_0() and "export_model" in {node.short_name for node in pipeline.nodes}:
            self.after_context_created(context)
            self.before_pipeline_run()
            model: Any = catalog.get("model")
            if not (self.data_root / "runs" / model.fingerprint() / RECORD).exists():
                self.after_pipeline_run(pipeline, catalog)

    def _add_skipped(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Add the outputs that this run did not save, because they are up to date."""
        for name in pipeline.all_outputs() - self.saved.keys():
            dataset: Any = catalog.get(name)
            if _is_marked(dataset) and dataset.exists():
                self.after_dataset_saved(name, catalog.load(name))


def _is_marked(dataset: Any) -> bool:
    return bool((getattr(dataset, "metadata", None) or {}).get("archive"))


def _foreign(saved: Mapping[str, Provenance | None]) -> set[str]:
    """Return the outputs that were made from another model, or from other inputs than the model."""
    model = saved["model"]
    assert model is not None
    known = {"model": model.fingerprint, **model.inputs}
    foreign = set[str]()
    for name, made_by in saved.items():
        if made_by is None:
            continue
        made_from = made_by.inputs | {name: made_by.fingerprint}
        if any(known.get(each, value) != value for each, value in made_from.items()):
            foreign.add(name)
        known.setdefault(name, made_by.fingerprint)
    return foreign


def _parameters_of(parameters: dict[str, Any], pipeline: Pipeline, record: Path) -> dict[str, Any]:
    """Return all parameters; groups that this pipeline does not use are taken from the run's earlier record."""
    if not record.is_file():
        return parameters
    earlier = json.loads(record.read_text())
    used = {name for name in Parameters.model_fields if f"params:{name}" in pipeline.inputs()} | {"use"}
    return {name: values if name in used else earlier.get(name, values) for name, values in parameters.items()}
