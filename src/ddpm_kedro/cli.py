"""Commands of this project, beside Kedro's own."""

import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import _split_params
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from rich.console import Console
from rich.table import Table

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.parameters import UserError
from ddpm_kedro.runs import compare, find_run, read_runs

__all__ = ["cli", "run"]
MEGABYTE = 1e6
FIGURES = ("images_seen", "loss", "validation_loss")


@click.group()
def cli() -> None:
    """Kedro adds these groups to its own."""


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """A person's mistake is one message."""

    @wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            raise click.ClickException(str(error)) from error

    return told


environment = click.option("--env", "-e", default=None, help="Environment, such as smoke; local by default.")


@cli.group()
def runs() -> None:
    """Finished runs: list them, compare two, remove old ones."""


@runs.command("list")
@environment
@click.pass_obj
@_plainly
def list_runs(project: ProjectMetadata, env: str | None) -> None:
    """Every finished run, the newest first."""
    found = read_runs(_folder(project, env))
    if not found:
        click.echo("No finished run yet: kedro run")
        return
    table = Table("run", "finished", "dataset", "model", "optimizer", "lr", "images", "loss", "validation", box=None)
    for kept in found:
        use, lr = kept.parameters["use"], kept.parameters["optimizer"]["lr"]
        seen, *losses = (kept.figures.get(name, float("nan")) for name in FIGURES)
        table.add_row(
            kept.run_id,
            f"{kept.finished:%Y-%m-%d %H:%M}",
            *(str(use[group]) for group in ("dataset", "model", "optimizer")),
            f"{lr:g}",
            f"{seen:,.0f}",
            *(f"{loss:.4f}" for loss in losses),
        )
    _console().print(table)


@runs.command()
@click.argument("earlier")
@click.argument("later")
@environment
@click.pass_obj
@_plainly
def diff(project: ProjectMetadata, earlier: str, later: str, env: str | None) -> None:
    """What differs between two runs, given by the beginnings of their ids."""
    found = read_runs(_folder(project, env))
    click.echo("\n".join(compare(find_run(found, earlier), find_run(found, later))) or "They are equal.")


@runs.command()
@click.option("--keep", type=click.IntRange(min=0), required=True, help="How many of the newest runs to keep.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@environment
@click.pass_obj
@_plainly
def prune(project: ProjectMetadata, keep: int, yes: bool, env: str | None) -> None:
    """Remove all finished runs but the newest."""
    old = read_runs(_folder(project, env))[keep:]
    if not old:
        click.echo("Nothing to remove.")
        return
    for kept in old:
        click.echo(f"{kept.run_id}  {kept.finished:%Y-%m-%d %H:%M}  {kept.size / MEGABYTE:,.1f} MB")
    if not yes:
        click.confirm(f"Remove these {len(old)} runs for good?", abort=True)
    for kept in old:
        shutil.rmtree(kept.folder)
    click.echo(f"Removed {len(old)}.")


@cli.group()
def parameters() -> None:
    """Parameters: the options of each group, and what a choice of them resolves to."""


@parameters.command("options")
@environment
@click.pass_obj
@_plainly
def list_options(project: ProjectMetadata, env: str | None) -> None:
    """The options of each group, for ``--params use.<group>=<option>``."""
    for group, options in _loader(project, env).options().items():
        click.echo(f"{group}: {', '.join(options)}")


@parameters.command()
@click.option("--params", callback=_split_params, default="", help="As for kedro run: use.experiment=cifar10,…")
@environment
@click.pass_obj
@_plainly
def show(project: ProjectMetadata, params: dict[str, Any], env: str | None) -> None:
    """Every parameter that a run would have, and where its value comes from."""
    table = Table("parameter", "value", "from", box=None)
    for name, (value, origin) in _loader(project, env, params).origins().items():
        table.add_row(name, str(value), origin)
    _console().print(table)


def _loader(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> GroupConfigLoader:
    with KedroSession.create(project.project_path, env=env, runtime_params=params) as session:
        assert isinstance(session, KedroSession)
        loader = session.load_context().config_loader
    assert isinstance(loader, GroupConfigLoader)
    return loader


def _folder(project: ProjectMetadata, env: str | None) -> Path:
    return Path(project.project_path, _loader(project, env)["globals"]["data_root"], "runs")


def _console() -> Console:
    """Whole lines where the output is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
