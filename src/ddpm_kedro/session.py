"""A Kedro session that tells a person's mistakes from bugs."""

import errno
from collections.abc import Iterable, Iterator
from pkgutil import iter_modules
from typing import Any

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.session import KedroSession
from kedro.io import DatasetError

from ddpm_kedro import pipelines
from ddpm_kedro.parameters import UserError, nearest
from ddpm_kedro.provenance import redact_text

OF_THE_FOLDER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class Session(KedroSession):
    """Ends with one message and exit status 1 where a person can mend the cause; a bug keeps its traceback."""

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines; see :meth:`KedroSession.run`.

        Raises:
            ClickException: for wrong parameters, missing inputs, an unknown name, a folder that cannot be written.
        """
        try:
            _check_pipelines(kwargs.get("pipeline_names"))
            return super().run(*args, **kwargs)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            raise ClickException(message) from error


def explain(error: BaseException) -> str | None:
    """Return what to tell a person about an error, without secrets of URLs, or None for a bug."""
    message = _explain(error)
    return None if message is None else redact_text(message)


def _explain(error: BaseException) -> str | None:
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, OSError) and (cause.errno in OF_THE_FOLDER or isinstance(error, DatasetError)):
            return f"{cause.filename or 'A file'} cannot be read or written: {cause.strerror or cause}."
    if isinstance(error, MissingConfigException):
        base = "It holds the project's own parameters: put (or mount) yours as conf/local, not over conf."
        return f"{error}. {base if str(error).endswith('base') else 'Check --env and --conf-source.'}"
    return None


def _check_pipelines(names: Iterable[str] | None) -> None:
    known = ["__default__", *(module.name for module in iter_modules(pipelines.__path__))]
    for name in names or ():
        if name not in known:
            raise UserError(f"Unknown pipeline '{name}'. {nearest(name, known)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
