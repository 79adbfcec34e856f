"""A Kedro session that shows user errors without a traceback."""

import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.project import pipelines as registered
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.io.core import get_protocol_and_path
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner

from ddpm_kedro import pipelines
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import UserError, causes, nearest
from ddpm_kedro.files import DAMAGE, reason_of
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.kedro_adapter import config_loader_of, is_async, path_in_error
from ddpm_kedro.provenance import redact_text

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DEFAULT, INGESTION, TRAINING = "__default__", "data_ingestion", "model_training"
PLAN, TRAIN = "plan_training", "train_model"  # the last node before the parameters are read again, and who needs them
USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, *DISK_FULL}
FULL = " The files on the disk are complete: free some space, and run the same command again."

# The runner recommends --async, which this project rejects.
logging.getLogger(SequentialRunner.__module__).addFilter(lambda record: "--async" not in record.getMessage())


class Session(KedroSession):
    """End with one message and exit status 1 after a user error; a bug keeps its traceback."""

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines; see :meth:`KedroSession.run`.

        Raises:
            ClickException: for invalid parameters, missing inputs, an unknown name, or a data folder that cannot be
                written or is in use.
        """
        with errors_explained():
            _check_pipelines(kwargs.get("pipeline_names"))
            _check_runner(kwargs.get("runner"))
            with hold_data_folder(self._data_folder()):  # hooks do not fire on Ctrl-C
                ingestion, rest = self._phases(kwargs)
                if ingestion:
                    self._another().run(**kwargs | {"node_names": ingestion})
                    kwargs["node_names"] = rest
                return super().run(*args, **kwargs)

    def _phases(self, kwargs: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Return the nodes to run first, and the rest; nothing to run first if a run needs only one phase.

        Ingestion plans the training of your own images: if a run has both, it reads the parameters again in between.
        """
        names = (
            {kwargs["pipeline_name"]} if kwargs.get("pipeline_name") else {*(kwargs.get("pipeline_names") or [DEFAULT])}
        )
        if not (DEFAULT in names or {INGESTION, TRAINING} <= names) or TRIAL.trial is not None:
            return [], []  # the trials of a sweep have one plan
        if config_loader_of(self)["parameters"]["dataset"]["path"] is None:
            return [], []
        nodes = _filter(names, kwargs).nodes
        first = [node.name for node in nodes if node.namespace == INGESTION]
        rest = [node.name for node in nodes if node.namespace != INGESTION]
        both = {PLAN, TRAIN} <= {node.short_name for node in nodes}
        return (first, rest) if both else ([], [])

    def _another(self) -> KedroSession:
        """Return a session with the same arguments: Kedro allows one run per session."""
        return type(self).create(
            self.store["project_path"],
            save_on_close=False,
            env=self.store.get("env"),
            runtime_params=self.store.get("runtime_params"),
            conf_source=config_loader_of(self).conf_source,
        )

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


def _filter(names: Iterable[str], kwargs: dict[str, Any]) -> Pipeline:
    """Return the nodes that Kedro's session would run with these arguments."""
    registered.set_requested(sorted(names))
    filters = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs")
    given = {name: kwargs.get(name) for name in filters} | {"node_namespaces": kwargs.get("namespaces")}
    return sum((registered[name] for name in names), Pipeline([])).filter(**given)


def _check_pipelines(names: Iterable[str] | None) -> None:
    known = [DEFAULT, *(module.name for module in iter_modules(pipelines.__path__))]
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
