"""What the commands share."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.utils import _split_params
from kedro.framework.project import settings
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from rich.console import Console

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.session import explain


def project_command(command: Callable[..., None]) -> Callable[..., None]:
    """A command that knows the project and its environment, and says a person's mistake in one message."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            message = explain(error)
            if message is None or isinstance(error, click.ClickException):
                raise
            raise click.ClickException(message) from error

    option = click.option("--env", "-e", default=None, help="Environment, such as smoke; local by default.")
    return option(click.pass_obj(told))


def read_params(text: str) -> dict[str, Any]:
    """What ``--params`` with this text means."""
    params: dict[str, Any] = _split_params(click.get_current_context(), click.Option(["--params"]), text)
    return params


def make_session(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> KedroSession:
    """A session of this environment, with parameters as of the command line."""
    session = settings.SESSION_CLASS.create(project.project_path, env=env, runtime_params=params)
    assert isinstance(session, KedroSession)
    return session


def make_loader(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> GroupConfigLoader:
    """The configuration that such a session has."""
    loader = make_session(project, env, params).load_context().config_loader
    assert isinstance(loader, GroupConfigLoader)
    return loader


def data_folder(project: ProjectMetadata, env: str | None, name: str = "runs") -> Path:
    """A folder below where the data lies."""
    return Path(project.project_path, make_loader(project, env)["globals"]["data_root"], name)


def console() -> Console:
    """Whole lines where the output is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=200)
