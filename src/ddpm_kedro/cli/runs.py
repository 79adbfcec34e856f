"""Finished runs."""

import shutil
import time
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata
from rich.table import Table

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.cli.common import console, data_folder, make_session, project_command
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.runs import PARAMETERS, KeptRun, compare, find_run, read_runs, read_unfinished

MEGABYTE = 1e6
SECONDS = 2.0  # between two looks at a training
CHECKPOINTS = ("checkpoint", "best_checkpoint")
FIGURES = ("images_seen", "loss", "validation_loss")


@click.group()
def runs() -> None:
    """Runs: follow one, list finished ones, compare two, remove old ones."""


@runs.command()
@click.option("--once", is_flag=True, help="Say what there is, and do not wait for more.")
@project_command
def watch(project: ProjectMetadata, once: bool, env: str | None) -> None:
    """Follow the training that goes on, or the last one, from another shell; Ctrl-C ends it."""
    dataset: Any = make_session(project, env).load_context().catalog.get("training_history")
    told = 0
    while True:
        rows = dataset.load() if dataset.exists() else []
        if len(rows) < told:  # another training has begun
            click.echo("A new training.")
            told = 0
        for row in rows[told:]:
            click.echo(
                f"{row['images_seen']:>12,.0f} images  loss {row['loss']:.4f}  "
                f"validation {row['validation_loss']:.4f}  lr {row['learning_rate']:.2e}  "
                f"{row['images_per_second']:,.0f} images/s"
            )
        told = len(rows)
        if once:
            return
        time.sleep(SECONDS)


@runs.command("list")
@project_command
def list_runs(project: ProjectMetadata, env: str | None) -> None:
    """Every finished run, the newest first."""
    found = read_runs(data_folder(project, env) / "runs")
    if not found:
        click.echo("No finished run yet: kedro run")
        _list_unfinished(data_folder(project, env) / "runs")
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
    console().print(table)
    _list_unfinished(data_folder(project, env) / "runs")


def _list_unfinished(folder: Path) -> None:
    """Print which runs left checkpoints but did not finish: they were stopped, killed or pruned."""
    found = read_unfinished(folder)
    if found:
        size = sum(run.size for run in found) / MEGABYTE
        click.echo(f"\nNot finished ({size:,.1f} MB; `kedro runs prune --unfinished` removes them):")
    for run in found:
        _print_size(run)


def _print_size(run: KeptRun) -> None:
    click.echo(f"{run.run_id}  {run.finished:%Y-%m-%d %H:%M}  {run.size / MEGABYTE:,.1f} MB")


@runs.command()
@click.argument("earlier")
@click.argument("later")
@project_command
def diff(project: ProjectMetadata, earlier: str, later: str, env: str | None) -> None:
    """What differs between two runs, given by the beginnings of their ids."""
    found = read_runs(data_folder(project, env) / "runs")
    click.echo("\n".join(compare(find_run(found, earlier), find_run(found, later))) or "They are equal.")


@runs.command()
@click.option("--keep", type=click.IntRange(min=0), help="How many of the newest finished runs to keep.")
@click.option("--unfinished", is_flag=True, help="Remove the checkpoints of runs that did not finish.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@project_command
def prune(project: ProjectMetadata, keep: int | None, unfinished: bool, yes: bool, env: str | None) -> None:
    """Remove all finished runs but the newest, or what unfinished ones left, or both."""
    if keep is None and not unfinished:
        raise click.UsageError("Say what to remove: --keep N, --unfinished, or both.")
    data = data_folder(project, env)
    old = _find_old(data / "runs", keep, unfinished)
    if not old:
        click.echo("Nothing to remove.")
        return
    for kept in old:
        _print_size(kept)
    if not yes:
        click.confirm(f"Remove these {len(old)} runs for good?", abort=True)
    with hold_data_folder(data):
        still = {kept.folder for kept in _find_old(data / "runs", keep, unfinished)}  # a training may have come between
        old = [kept for kept in old if kept.folder in still]
        for kept in old:
            (kept.folder / PARAMETERS).unlink(missing_ok=True)  # first: what is half removed is not listed
            shutil.rmtree(kept.folder)
    click.echo(f"Removed {len(old)}.")


def _find_old(folder: Path, keep: int | None, unfinished: bool) -> list[KeptRun]:
    """Return the finished runs but the newest, and the unfinished ones, as asked for."""
    old = read_runs(folder)[keep:] if keep is not None else []
    return old + (read_unfinished(folder) if unfinished else [])


@runs.command()
@click.option(
    "--mark", type=click.Path(dir_okay=False, path_type=Path), help="Say so in this file; at first, only that."
)
@project_command
def restart(project: ProjectMetadata, mark: Path | None, env: str | None) -> None:
    """Let every next training start from scratch, though its parameters are the same: for when the code has changed."""
    with hold_data_folder(data_folder(project, env)):
        catalog: Any = make_session(project, env).load_context().catalog
        first = mark is not None and not mark.exists()
        kept = {path for name in (() if first else CHECKPOINTS) for path in catalog.get(name).retire()}
        said = [f"The checkpoints of a run are kept in {path}." for path in sorted(kept)]
        message = "\n".join([*said, "The next training starts from scratch."] if kept else ["Nothing to put aside."])
        click.echo(message)
        if mark is not None:
            with atomic_write(mark) as file:
                file.write(f"{message}\n".encode())
