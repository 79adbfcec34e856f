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
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.io.core import get_protocol_and_path
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner

from ddpm_kedro import pipelines
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import UserError, causes, nearest
from ddpm_kedro.files import DAMAGE, reason_of
from ddpm_kedro.kedro_adapter import config_loader_of, is_async, path_in_error
from ddpm_kedro.provenance import redact_text
from ddpm_kedro.run_log import run_log

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
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
            folder = self._data_folder()
            with hold_data_folder(folder), run_log(folder):  # hooks do not fire on Ctrl-C
                return super().run(*args, **kwargs)

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
