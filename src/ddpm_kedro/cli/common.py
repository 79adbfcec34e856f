"""Options and helpers that the commands share."""

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from pathlib import Path
from typing import Any, Self

import click
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from rich.console import Console

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.errors import UserError
from ddpm_kedro.plain_text import value_of
from ddpm_kedro.session import Session, errors_explained


def project_command(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the project and ``--env``, and let a user error end it with one message, without a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with errors_explained():
            command(*args, **kwargs)

    option = click.option("--env", "-e", default=None, help="Environment, such as smoke; default: local.")
    return option(click.pass_obj(wrapped))


def split_params(ctx: click.Context, option: click.Parameter, value: Any) -> dict[str, Any]:
    """Parse ``--params``: a value is text if the parameter takes text, otherwise YAML.

    Raises:
        ClickException: for an item that is not ``name=value``.
    """
    if isinstance(value, dict):  # the value comes from a file
        return value
    with errors_explained():
        return read_params(value)


def read_params(params: str) -> dict[str, Any]:
    """Parse the text of ``--params``; see :func:`split_params`."""
    found: dict[str, Any] = {}
    items = [item.strip() for item in params.split(",")]
    for item in filter(None, items):
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise UserError(f"--params: {item!r} is not a parameter with a value, such as sampling.seed=7.")
        *above, key = name.split(".")
        group: Any = found
        for part in above:
            group = group.setdefault(part, {}) if isinstance(group, dict) else None
        if not isinstance(group, dict) or isinstance(group.get(key), dict):
            raise UserError(f"--params: {name} is given both as a value and as a group of parameters.")
        group[key] = value_of(name, text)
    return found


class ListOption(click.Option):
    """An option with values separated by commas. It may be given several times; the values add up."""

    @classmethod
    def of(cls, option: click.Option, callback: Callable[..., Any] | None) -> Self:
        """Return the same option as a list, with another callback."""
        copied = copy(option)
        copied.__class__ = cls
        copied.multiple, copied.callback = True, callback
        assert isinstance(copied, cls)
        return copied

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Join the values into one text. Values from a file may have any type."""
        return ",".join(value) if isinstance(value, list | tuple) else value


def make_session(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> KedroSession:
    """Create a session of this environment, with parameters as from the command line."""
    return Session.create(project.project_path, env=env, runtime_params=params)


def make_loader(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> GroupConfigLoader:
    """Create the configuration loader of such a session."""
    loader = make_session(project, env, params).load_context().config_loader
    assert isinstance(loader, GroupConfigLoader)
    return loader


def data_folder(project: ProjectMetadata, env: str | None) -> Path:
    """Return the data folder of this environment."""
    return Path(project.project_path, make_loader(project, env)["globals"]["data_root"])


def console() -> Console:
    """Create a console that does not wrap lines unless the output is a terminal."""
    create = partial(Console, markup=False, emoji=False)  # values may contain [b] or :red:
    terminal = create()
    return terminal if terminal.is_terminal else create(width=200)
