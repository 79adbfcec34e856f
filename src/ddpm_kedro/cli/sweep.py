"""The command that sweeps."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.startup import ProjectMetadata
from rich.table import Table

from ddpm_kedro.cli.common import console, data_folder, make_loader, make_session, project_command, read_params
from ddpm_kedro.data_lock import hold_data_folder
from ddpm_kedro.errors import ConflictError, UserError
from ddpm_kedro.parameters import Group, check_parameters
from ddpm_kedro.provenance import fingerprint, flatten, redact, redact_text

if TYPE_CHECKING:
    from ddpm_kedro.sweep import Sweep

NOT_COMPARABLE = ("dataset.", "images.", "diffusion.", "training.seed")
TRAINED = (*NOT_COMPARABLE, "augmentation.", "model.", "optimizer.", "training.")


@click.command()
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
@project_command
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
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--name {name!r}: a name has letters, digits, dots and dashes.")
    options["sampler"] = options["sampler"] or sweeps.usual_sampler(varied, options["trials"])
    config = _trained(_shaping(project, env, params))
    asked = sweeps.Sweep(sweeps.read_space(varied), params, **options, config=config)
    sweeps.check(asked)
    _check_sweep(project, env, asked)
    name = name or fingerprint(asked.describe())
    data = data_folder(project, env)
    folder = data / "sweeps" / name
    with hold_data_folder(data):
        study = sweeps.open_study(asked, folder)
        sweeps.run_sweep(asked, study, lambda changes: _run_trial(project, env, changes, name))
    _report_sweep(sweeps, asked, study, folder, env)


def _run_trial(project: ProjectMetadata, env: str | None, changes: str, name: str) -> None:
    params = read_params(changes)
    params.setdefault("tracking", {}).setdefault("group", name)
    session = make_session(project, env, params)
    try:
        session.run()
    finally:
        session.close()


def _shaping(project: ProjectMetadata, env: str | None, params: str) -> dict[str, Any]:
    """Every parameter that shapes a run, by its full name."""
    checked = check_parameters(make_loader(project, env, read_params(params))["parameters"])
    return dict(
        flatten(redact({name: group.fingerprint_fields() for name, group in checked if isinstance(group, Group)}))
    )


def _trained(parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of them that can change a training: not how it is tracked, sampled or judged."""
    return {name: value for name, value in parameters.items() if name.startswith(TRAINED)}


def _check_sweep(project: ProjectMetadata, env: str | None, asked: "Sweep") -> None:
    """Unknown names, values of a wrong kind and what cannot change a loss, before the first run."""
    from ddpm_kedro.sweep import candidates  # noqa: PLC0415

    for name, values in asked.space.items():
        found = []
        for value in candidates(values):
            try:
                found.append(_shaping(project, env, asked.params({name: value})))
            except ConflictError:  # perhaps not with what else varies
                if len(asked.space) == 1:
                    raise
        trained = [_trained(each) for each in found]
        if len(found) > 1 and all(each == trained[0] for each in trained):
            raise UserError(f"{name} has no effect on a training: every trial would be the same run.")
        if any(each.get(key) != found[0].get(key) for each in found for key in each if key.startswith(NOT_COMPARABLE)):
            click.echo(f"Validation losses are not comparable where {name} differs: look at the samples, too.")


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
    console().print(table)
    pages = sweeps.write_plots(study, folder)
    click.echo(f"In {folder}: {', '.join(['trials.csv', *pages])}")
    if trials and trials[0].state.name == "COMPLETE":
        where = f"--env {env} " if env else ""
        again = shlex.quote(redact_text(asked.params(trials[0].params)))
        click.echo(f"Its model: {folder.parents[1] / 'runs' / trials[0].user_attrs['run_id'] / 'model'}")
        click.echo(f"The best again: kedro run {where}--params {again}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
