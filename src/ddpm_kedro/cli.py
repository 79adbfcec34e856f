"""Commands of this project, beside Kedro's own."""

import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import _split_params
from kedro.framework.project import settings
from kedro.framework.session import KedroSession
from kedro.framework.startup import ProjectMetadata
from rich.console import Console
from rich.table import Table

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.datasets.atomic import atomic_write
from ddpm_kedro.parameters import ConflictError, UserError
from ddpm_kedro.provenance import fingerprint
from ddpm_kedro.runs import compare, find_run, read_runs

if TYPE_CHECKING:
    from ddpm_kedro.sweep import Sweep

__all__ = ["cli", "run"]
MEGABYTE = 1e6
FIGURES = ("images_seen", "loss", "validation_loss")
NOT_COMPARABLE = ("use.dataset", "dataset.", "images.", "use.diffusion", "diffusion.", "training.validation_images")


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
    groups = ("experiment", "dataset", "model", "optimizer")
    table = Table("run", "finished", *groups, "lr", "images", "loss", "validation", box=None)
    for kept in found:
        use, lr = kept.parameters["use"], kept.parameters["optimizer"]["lr"]
        seen, *losses = (kept.figures.get(name, float("nan")) for name in FIGURES)
        table.add_row(
            kept.run_id,
            f"{kept.finished:%Y-%m-%d %H:%M}",
            *(use[group] or "" for group in groups),
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


@runs.command()
@environment
@click.pass_obj
@_plainly
def restart(project: ProjectMetadata, env: str | None) -> None:
    """Let the next training begin anew, though its parameters are the same: for when the code has changed."""
    context = _session(project, env).load_context()
    checkpoint: Any = context.catalog.get("checkpoint")
    kept = checkpoint.put_aside()
    click.echo(
        f"The checkpoint is kept as {kept}; the next training begins anew." if kept else "There is no checkpoint."
    )


@cli.command()
@click.argument("varied", nargs=-1, required=True, metavar="NAME=VALUES...")
@click.option("--params", default="", help="What stays the same, as for kedro run.")
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "tpe"]),
    help="grid where all values or steps are given, else tpe.",
)
@click.option("--trials", type=click.IntRange(min=1), help="How many in all; a grid is tried to its end.")
@click.option("--pruner", type=click.Choice(["none", "median", "halving"]), default="median", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sampler.")
@click.option("--name", default=None, help="Of its folder in data/sweeps/; made from what varies by default.")
@environment
@click.pass_obj
@_plainly
def sweep(project: ProjectMetadata, varied: tuple[str, ...], params: str, name: str | None, **options: Any) -> None:
    """Try parameters: use.optimizer=adam,sgd lists values, optimizer.lr=1e-4..1e-2:log is a range.

    Each trial is an ordinary run; the lowest validation loss wins. The same command goes on where it was stopped.
    """
    try:
        from ddpm_kedro import sweep as sweeps  # noqa: PLC0415  Optuna is an extra
    except ModuleNotFoundError as error:
        raise UserError(
            f"kedro sweep needs Optuna ({error}). Install it with: pip install -c constraints.txt -e '.[sweep]'"
        ) from error
    env = options.pop("env")
    space = sweeps.read_space(varied)
    options["sampler"] = options["sampler"] or sweeps.usual_sampler(space, options["trials"])
    asked = sweeps.Sweep(space, params, **options)
    sweeps.check(asked)
    _check_sweep(project, env, asked)
    name = name or fingerprint(asked.describe())
    folder = _folder(project, env, "sweeps") / name
    study = sweeps.open_study(asked, folder)

    def one_run(changes: str) -> None:
        session = _session(project, env, _params(f"{changes},tracking.group={name}"))
        try:
            session.run()
        finally:
            session.close()

    sweeps.run_sweep(asked, study, one_run)
    _report_sweep(sweeps, asked, study, folder, env)


def _check_sweep(project: ProjectMetadata, env: str | None, asked: "Sweep") -> None:
    """Unknown names and values of a wrong kind, before the first run."""
    from ddpm_kedro.sweep import candidates  # noqa: PLC0415

    for name, values in asked.space.items():
        for value in candidates(values):
            try:
                _loader(project, env, _params(asked.params({name: value})))["parameters"]
            except ConflictError:  # perhaps not with what else varies
                continue
    if foreign := [name for name in asked.space if name.startswith(NOT_COMPARABLE)]:
        click.echo(
            f"Validation losses are not comparable where {', '.join(foreign)} differs: look at the samples, too."
        )


def _report_sweep(sweeps: Any, asked: "Sweep", study: Any, folder: Path, env: str | None) -> None:
    trials = sweeps.ended(study)
    table = Table("trial", "run", "state", "validation loss", "images", *asked.space, box=None)
    for trial in trials:
        table.add_row(
            str(trial.number),
            trial.user_attrs.get("run_id", ""),
            trial.state.name.lower(),
            "" if trial.value is None else f"{trial.value:.4f}",
            f"{max(trial.intermediate_values, default=0):,}",
            *(_short(trial.params.get(name, "")) for name in asked.space),
        )
    _console().print(table)
    pages = sweeps.write_plots(study, folder)
    click.echo(f"In {folder}: {', '.join(['trials.csv', *pages])}")
    if trials and trials[0].state.name == "COMPLETE":
        where = f"--env {env} " if env else ""
        click.echo(f"The best again: kedro run {where}--params {asked.params(trials[0].params)}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


@parameters.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@environment
@click.pass_obj
@_plainly
def dump(project: ProjectMetadata, path: Path, env: str | None) -> None:
    """Write every parameter that a run would have to a YAML file, for other programs."""
    resolved = _loader(project, env)["parameters"]
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(resolved, sort_keys=False).encode())


def _params(text: str) -> dict[str, Any]:
    """What ``--params`` with this text means."""
    params: dict[str, Any] = _split_params(click.get_current_context(), click.Option(["--params"]), text)
    return params


def _session(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> KedroSession:
    session = settings.SESSION_CLASS.create(project.project_path, env=env, runtime_params=params)
    assert isinstance(session, KedroSession)
    return session


def _loader(project: ProjectMetadata, env: str | None, params: dict[str, Any] | None = None) -> GroupConfigLoader:
    loader = _session(project, env, params).load_context().config_loader
    assert isinstance(loader, GroupConfigLoader)
    return loader


def _folder(project: ProjectMetadata, env: str | None, name: str = "runs") -> Path:
    return Path(project.project_path, _loader(project, env)["globals"]["data_root"], name)


def _console() -> Console:
    """Whole lines where the output is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
