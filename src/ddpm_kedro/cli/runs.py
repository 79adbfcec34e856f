"""The commands ``kedro runs``."""

import shutil
import time
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata
from rich.table import Table

from ddpm_kedro.atomic import write_text
from ddpm_kedro.cli.common import console, data_folder, make_session, project_command
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.runs import PARAMETERS, KeptRun, compare, find_run, read_runs, read_unfinished

MEGABYTE = 1e6
SECONDS = 2.0  # seconds between two reads of the history
CHECKPOINTS = ("checkpoint", "best_checkpoint")
FIGURES = ("images_seen", "loss", "validation_loss")


@click.group()
def runs() -> None:
    """Follow a training, list finished runs, compare two, remove old ones."""


@runs.command()
@click.option("--once", is_flag=True, help="Print the history so far and exit.")
@project_command
def watch(project: ProjectMetadata, once: bool, env: str | None) -> None:
    """Follow the current or the last training from another shell. Ctrl-C exits."""
    dataset: Any = make_session(project, env).load_context().catalog.get("training_history")
    printed = 0
    while True:
        rows = dataset.load() if dataset.exists() else []
        if len(rows) < printed:  # another training has started
            click.echo("A new training started.")
            printed = 0
        for row in rows[printed:]:
            click.echo(
                f"{row['images_seen']:>12,.0f} images  loss {row['loss']:.4f}  "
                f"validation {row['validation_loss']:.4f}  lr {row['learning_rate']:.2e}  "
                f"{row['images_per_second']:,.0f} images/s"
            )
        printed = len(rows)
        if once:
            return
        time.sleep(SECONDS)


@runs.command("list")
@project_command
def list_runs(project: ProjectMetadata, env: str | None) -> None:
    """List finished runs, newest first, and what unfinished runs left."""
    folder = data_folder(project, env) / "runs"
    found = read_runs(folder)
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
    if found:
        console().print(table)
    else:
        click.echo("No finished run yet. Start one with: kedro run")
    if unfinished := read_unfinished(folder):  # stopped, killed or pruned
        size = sum(run.size for run in unfinished) / MEGABYTE
        click.echo(f"\nNot finished ({size:,.1f} MB; `kedro runs prune --unfinished` removes them):")
    for run in unfinished:
        _print_size(run)


def _print_size(run: KeptRun) -> None:
    click.echo(f"{run.run_id}  {run.finished:%Y-%m-%d %H:%M}  {run.size / MEGABYTE:,.1f} MB")


@runs.command()
@click.argument("earlier")
@click.argument("later")
@project_command
def diff(project: ProjectMetadata, earlier: str, later: str, env: str | None) -> None:
    """Compare two runs, given by the beginnings of their ids."""
    found = read_runs(data_folder(project, env) / "runs")
    click.echo("\n".join(compare(find_run(found, earlier), find_run(found, later))) or "The runs are equal.")


@runs.command()
@click.option("--keep", type=click.IntRange(min=0), help="Keep this number of the newest finished runs.")
@click.option("--unfinished", is_flag=True, help="Remove the checkpoints of runs that did not finish.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@project_command
def prune(project: ProjectMetadata, keep: int | None, unfinished: bool, yes: bool, env: str | None) -> None:
    """Remove old finished runs, checkpoints of unfinished runs, or both."""
    if keep is None and not unfinished:
        raise click.UsageError("Choose what to remove: --keep N, --unfinished, or both.")
    data = data_folder(project, env)
    old = _find_old(data / "runs", keep, unfinished)
    if not old:
        click.echo("Nothing to remove.")
        return
    for run in old:
        _print_size(run)
    if not yes:
        click.confirm(f"Remove these {len(old)} runs permanently?", abort=True)
    with hold_data_folder(data):
        still = {run.folder for run in _find_old(data / "runs", keep, unfinished)}  # may have changed
        old = [run for run in old if run.folder in still]
        for run in old:
            (run.folder / PARAMETERS).unlink(missing_ok=True)  # first: a run that is partly removed is not listed
            shutil.rmtree(run.folder)
    click.echo(f"Removed {len(old)} runs.")


def _find_old(folder: Path, keep: int | None, unfinished: bool) -> list[KeptRun]:
    """Return the finished runs except the newest, and the unfinished runs, as the options say."""
    old = read_runs(folder)[keep:] if keep is not None else []
    return old + (read_unfinished(folder) if unfinished else [])


@runs.command()
@click.option(
    "--mark",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Stamp file for DVC; if it does not exist, it is created without a restart.",
)
@project_command
def restart(project: ProjectMetadata, mark: Path | None, env: str | None) -> None:
    """Start the next training from scratch, even with the same parameters. Use it after a change of the code."""
    with hold_data_folder(data_folder(project, env)):
        catalog: Any = make_session(project, env).load_context().catalog
        first = mark is not None and not mark.exists()
        kept = {path for name in (() if first else CHECKPOINTS) for path in catalog.get(name).retire()}
        lines = [f"Checkpoints moved to {path}." for path in sorted(kept)]
        message = "\n".join([*lines, "The next training starts from scratch."] if kept else ["No checkpoints to move."])
        click.echo(message)
        if mark is not None:
            write_text(mark, f"{message}\n")
