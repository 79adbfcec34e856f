"""What the commands share."""

from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from pathlib import Path
from typing import Any, Self

import click
from kedro.framework.cli.utils import split_string
from kedro.framework.project import settings
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from rich.console import Console

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.errors import UserError
from ddpm_kedro.plain_text import value_of
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


def split_params(ctx: click.Context, option: click.Parameter, value: Any) -> dict[str, Any]:
    """Return what ``--params`` means: text stays text where the parameter takes text, the rest is YAML.

    Raises:
        ClickException: for what is no parameter with a value.
    """
    if isinstance(value, dict):  # of a file
        return value
    try:
        return _nested(split_string(ctx, option, value))
    except UserError as error:
        raise click.ClickException(str(error)) from error


def _nested(items: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise UserError(f"--params: {item!r} is no parameter with a value, such as sampling.seed=7.")
        *above, key = name.split(".")
        group: Any = found
        for part in above:
            group = group.setdefault(part, {}) if isinstance(group, dict) else None
        if not isinstance(group, dict) or isinstance(group.get(key), dict):
            raise UserError(f"--params: {name} is given as one value and as a group of parameters, too.")
        group[key] = value_of(name, text)
    return found


def read_params(text: str) -> dict[str, Any]:
    """What ``--params`` with this text means."""
    return split_params(click.get_current_context(), click.Option(["--params"]), text)


class ListOption(click.Option):
    """An option whose values are separated by commas; each time that it is given, it adds to them."""

    @classmethod
    def of(cls, option: click.Option, callback: Callable[..., Any] | None) -> Self:
        """Return the same option, but added up, with another callback."""
        made = copy(option)
        made.__class__ = cls
        made.multiple, made.callback = True, callback
        assert isinstance(made, cls)
        return made

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return all values as one text; values from a file may have any type."""
        return ",".join(value) if isinstance(value, list | tuple) else value


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


def data_folder(project: ProjectMetadata, env: str | None) -> Path:
    """Return the folder that the runs of this environment write."""
    return Path(project.project_path, make_loader(project, env)["globals"]["data_root"])


def console() -> Console:
    """Whole lines where the output is no terminal."""
    made = partial(Console, markup=False, emoji=False)  # values may hold [b] or :red:
    found = made()
    return found if found.is_terminal else made(width=200)
