"""A Kedro session that tells a person's mistakes from bugs."""

from collections.abc import Iterator
from typing import Any

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.session import KedroSession
from kedro.io import DatasetError

from ddpm_kedro.parameters import UserError


class Session(KedroSession):
    """Ends with one message and exit status 1 where a person can mend the cause; a bug keeps its traceback."""

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run pipelines; see :meth:`KedroSession.run`.

        Raises:
            ClickException: for wrong parameters, missing inputs, an unknown name, a folder that cannot be written.
        """
        try:
            return super().run(*args, **kwargs)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            raise ClickException(message) from error


def explain(error: BaseException) -> str | None:
    """What to tell a person about an error, or None for a bug."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, OSError) and any(isinstance(e, DatasetError) for e in chain):
            return f"{cause.strerror or cause}: {cause.filename}. Earlier outputs are untouched."
    if isinstance(error, MissingConfigException):
        return f"{error} Check --env and --conf-source."
    if isinstance(error, ValueError) and "Failed to find the pipeline" in str(error):
        return " ".join(str(error).split())
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
