"""A Kedro session that shows user errors without a traceback."""

import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines as registered
from kedro.framework.session import KedroSession
from kedro.io import DataCatalog, DatasetError
from kedro.io.core import get_protocol_and_path
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner

from ddpm_kedro import pipelines
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import UserError, causes, nearest
from ddpm_kedro.files import DAMAGE, reason_of
from ddpm_kedro.hooks.archive import Archive
from ddpm_kedro.hooks.distributed import from_rank_0, join_processes, leave_processes
from ddpm_kedro.hooks.node_records import RECORDS
from ddpm_kedro.hooks.staleness import find_other_inputs
from ddpm_kedro.hooks.summary import Summary
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.kedro_adapter import config_loader_of, is_async, path_in_error
from ddpm_kedro.provenance import redact_text
from ddpm_kedro.run_log import run_log
from ddpm_kedro.up_to_date import find_nodes_to_run, read_records

logger = logging.getLogger(__name__)
INGESTION = "data_ingestion"
PLAN, TRAIN = "plan_training", "train_model"  # training uses the parameters that the plan stores
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, *DISK_FULL}
FULL = " The files on the disk are complete: free some space, and run the same command again."

# The runner recommends --async, which this project rejects. Kedro-Viz explains options that nobody gave, if nodes are
# skipped.
logging.getLogger(SequentialRunner.__module__).addFilter(lambda record: "--async" not in record.getMessage())
logging.getLogger("kedro_viz.integrations.kedro.run_hooks").addFilter(
    lambda record: "Workflow tracking is disabled during partial" not in record.getMessage()
)


class Session(KedroSession):
    """Skip nodes that are up to date, and end with one message and exit status 1 after a user error.

    A bug keeps its traceback.
    """

    _context: KedroContext | None = None
    _is_followed = False
    _has_run = False

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines; see :meth:`KedroSession.run`.

        Raises:
            ClickException: for invalid parameters, missing inputs, an unknown name, or a data folder that cannot be
                written or is in use.
        """
        with errors_explained():
            options = signature(KedroSession.run).bind(self, *args, **kwargs).arguments
            del options["self"]
            _check_pipelines(options.get("pipeline_names"))
            _check_runner(options.get("runner"))
            folder = self._data_folder()
            with hold_data_folder(folder), run_log(folder):  # hooks do not fire on Ctrl-C
                ingestion, rest = self._phases(options)
                if ingestion is not None:
                    first = self._another()
                    first._run_stale_nodes(options, ingestion)
                    self._has_run = first._has_run
                return self._run_stale_nodes(options, rest)

    def load_context(self) -> KedroContext:
        """Return the context of this session. It is made once: hooks are called when it is made."""
        if self._context is None:
            self._context = super().load_context()
        return self._context

    def _phases(self, options: dict[str, Any]) -> tuple[Pipeline | None, Pipeline]:
        """Return the nodes to run first, if a run needs two phases, and the rest.

        Ingestion plans the training of your own images: a run that has both reads the parameters again in between.
        """
        requested = _select_nodes(options)
        trained = {PLAN, TRAIN} <= {node.short_name for node in requested.nodes}
        if not trained or TRIAL.trial is not None:  # the trials of a sweep share one plan
            return None, requested
        if config_loader_of(self)["parameters"]["dataset"]["path"] is None:
            return None, requested
        first = requested.only_nodes_with_namespaces([INGESTION])
        return first, requested - first

    def _another(self) -> "Session":
        """Return a session with the same arguments, for a first phase: Kedro allows one run per session."""
        session = type(self).create(
            self.store["project_path"],
            save_on_close=False,
            env=self.store.get("env"),
            runtime_params=self.store.get("runtime_params"),
            conf_source=config_loader_of(self).conf_source,
        )
        assert isinstance(session, Session)
        session._is_followed = True
        return session

    def _run_stale_nodes(self, options: dict[str, Any], requested: Pipeline) -> dict[str, Any]:
        """Run the requested nodes that are not up to date; if all are, log where their outputs are."""
        context = self.load_context()
        catalog: Any = context.catalog
        join_processes(
            options.get("pipeline_names"), context.config_loader["parameters"]["training"]["process_timeout"]
        )
        try:
            names = from_rank_0(lambda: self._find_stale_nodes(requested, catalog, options))
            with RECORDS.of(requested):
                if names:
                    self._has_run = True
                    some = {"node_names": names} if len(names) < len(_select_nodes(options).nodes) else {}
                    return super().run(**options | some)
                if self._is_followed:
                    return {}
                if not self._has_run:
                    logger.info("Everything is up to date; to run it anyway: --params run.repeat=true")
                Archive().complete(requested, context, catalog)
                Summary().after_pipeline_run(requested, catalog)
        finally:
            leave_processes()
        return {}

    def _find_stale_nodes(self, requested: Pipeline, catalog: DataCatalog, options: dict[str, Any]) -> list[str]:
        """Return the names of the nodes to run; nodes that the command names always run."""
        context, names = self.load_context(), [node.name for node in requested.nodes]
        if options.get("node_names") or TRIAL.trial is not None or context.config_loader["parameters"]["run"]["repeat"]:
            return names
        records = read_records(self._data_folder())
        others = find_other_inputs(requested, context, catalog) if records else ()
        stale = find_nodes_to_run(requested, catalog, records, others)
        if 0 < len(stale) < len(names):
            logger.info("%d of %d nodes are up to date.", len(names) - len(stale), len(names))
        return stale

    def _data_folder(self) -> Path:
        root = config_loader_of(self)["globals"]["data_root"]
        if get_protocol_and_path(root)[0] != "file":
            raise UserError(
                f"data_root = {root} is not on a local disk, as checkpoints and images must be. Single entries of the "
                "catalog may be elsewhere: docs/configuration.md."
            )
        return Path(self.store["project_path"], root)


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn a user error in the block into a ClickException: one message, without secrets of URLs or a traceback."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if message is None or isinstance(error, ClickException):
            raise
        raise ClickException(redact_text(message)) from error


def explain(error: BaseException) -> str | None:
    """Return the message for a user error; None for a bug."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    if damage := _damage(error):
        return damage
    for cause in chain:
        if isinstance(cause, OSError) and (cause.errno in USER_ERRNOS or isinstance(error, DatasetError)):
            reason = f"{cause.filename or 'A file'} cannot be read or written: {cause.strerror or cause}."
            return f"{reason}{FULL if cause.errno in DISK_FULL else ''}"
    if isinstance(error, MissingConfigException):
        base = "It contains the project's own parameters: put (or mount) yours in conf/local, not over conf."
        return f"{error}. {base if str(error).endswith('base') else 'Check --env and --conf-source.'}"
    return None


def _damage(error: BaseException) -> str | None:
    """Return the message for a damaged file of one of Kedro's datasets, whose own error does not explain it."""
    cause = error.__cause__
    path = path_in_error(error) if isinstance(error, DatasetError) else None
    if path is None:
        return None
    if isinstance(cause, DAMAGE) or (isinstance(cause, OSError) and cause.errno is None):
        return f"{path or 'A file'} is damaged: {reason_of(cause)}. Remove it; `kedro run` makes it again."
    return None


def _select_nodes(options: dict[str, Any]) -> Pipeline:
    """Return the nodes that the options of :meth:`KedroSession.run` select."""
    names = [options["pipeline_name"]] if options.get("pipeline_name") else options.get("pipeline_names")
    registered.set_requested(names or None)
    pipeline = sum((registered[name] for name in names or ["__default__"]), Pipeline([]))
    filters = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs")
    return pipeline.filter(**{name: options.get(name) for name in filters}, node_namespaces=options.get("namespaces"))


def _check_pipelines(names: Iterable[str] | None) -> None:
    known = ["__default__", *(module.name for module in iter_modules(pipelines.__path__))]
    for name in names or ():
        if name not in known:
            raise UserError(f"Unknown pipeline '{name}'. {nearest(name, known)}")


def _check_runner(runner: AbstractRunner | None) -> None:
    """Reject a runner that cannot run this project, before any node runs."""
    if isinstance(runner, ParallelRunner):
        raise UserError(
            "ParallelRunner cannot run this project: nodes exchange data that cannot be copied to another process. Use "
            "SequentialRunner (the default) or ThreadRunner."
        )
    if runner is not None and is_async(runner):
        raise UserError("--async cannot run this project: a training saves its outputs while it runs. Omit it.")
