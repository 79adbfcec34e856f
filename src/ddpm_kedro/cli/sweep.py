"""The command ``kedro sweep``."""

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
TRIAL_PIPELINES = ["data_ingestion", "model_training", "sampling"]  # ranked by the validation loss: no evaluation
TRAINED = (*NOT_COMPARABLE, "augmentation.", "model.", "optimizer.", "training.")


@click.command()
@click.argument("varied", nargs=-1, required=True, metavar="NAME=VALUES...")
@click.option("--params", default="", help="Other parameters, as for kedro run.")
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "tpe"]),
    help="Default: grid if all values or steps are given, otherwise tpe.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Number of trials; by default the whole grid.")
@click.option(
    "--pruner",
    type=click.Choice(["none", "median", "halving"]),
    default="median",
    show_default=True,
    help="Rule for pruning trials with a high validation loss.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the sampler.")
@click.option("--name", default=None, help="Name of the folder in data/sweeps/; by default a hash of the sweep.")
@project_command
def sweep(project: ProjectMetadata, varied: tuple[str, ...], params: str, name: str | None, **options: Any) -> None:
    """Run trials with different parameters, and rank them by their last validation loss.

    use.optimizer=adam,sgd lists values; optimizer.lr=1e-4..1e-2:log is a range. Each trial trains and samples.
    The same command resumes a sweep that was stopped.
    """
    try:
        from ddpm_kedro import sweep as sweeps  # noqa: PLC0415  Optuna is an extra
    except ModuleNotFoundError as error:
        raise UserError(
            f"kedro sweep needs Optuna ({error}). Install it with: pip install -c constraints.txt -e '.[sweep]'"
        ) from error
    env = options.pop("env")
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--name {name!r}: a name may contain letters, digits, dots, dashes and underscores.")
    options["sampler"] = options["sampler"] or sweeps.default_sampler(varied, options["trials"])
    config = _training_fields(_fingerprint_fields(project, env, params))
    planned = sweeps.Sweep(sweeps.read_space(varied), params, **options, config=config)
    sweeps.check_sampler(planned)
    _check_values(project, env, planned)
    name = name or fingerprint(planned.describe())
    data = data_folder(project, env)
    folder = data / "sweeps" / name
    with hold_data_folder(data):
        study = sweeps.open_study(planned, folder)
        sweeps.run_sweep(planned, study, lambda changes: _run_trial(project, env, changes, name))
    _report_sweep(sweeps, planned, study, folder, env)


def _run_trial(project: ProjectMetadata, env: str | None, changes: str, name: str) -> None:
    params = read_params(changes)
    params.setdefault("tracking", {}).setdefault("group", name)
    with make_session(project, env, params) as session:
        session.run(pipeline_names=TRIAL_PIPELINES)  # type: ignore[call-arg]  # of Kedro's session


def _fingerprint_fields(project: ProjectMetadata, env: str | None, params: str) -> dict[str, Any]:
    """Return every parameter that affects a result, by its full name."""
    checked = check_parameters(make_loader(project, env, read_params(params))["parameters"])
    return dict(
        flatten(redact({name: group.fingerprint_fields() for name, group in checked if isinstance(group, Group)}))
    )


def _training_fields(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that affect a training, without the groups for tracking, sampling or evaluation."""
    return {name: value for name, value in parameters.items() if name.startswith(TRAINED)}


def _check_values(project: ProjectMetadata, env: str | None, planned: "Sweep") -> None:
    """Check every value before the first run.

    Raises:
        UserError: for an unknown name, an invalid value, or a parameter that has no effect on a training.
    """
    for name in planned.space:
        found = []
        for value in planned.candidates(name):
            try:
                found.append(_fingerprint_fields(project, env, planned.params({name: value})))
            except ConflictError:  # it may be accepted together with other values of the sweep
                if len(planned.space) == 1:
                    raise
        trained = [_training_fields(each) for each in found]
        if len(found) > 1 and all(each == trained[0] for each in trained):
            raise UserError(f"{name} has no effect on a training: every trial would be the same run.")
        if any(each.get(key) != found[0].get(key) for each in found for key in each if key.startswith(NOT_COMPARABLE)):
            click.echo(f"Validation losses are not comparable if {name} differs: compare the samples, too.")


def _report_sweep(sweeps: Any, planned: "Sweep", study: Any, folder: Path, env: str | None) -> None:
    trials = sweeps.finished_trials(study)
    table = Table("trial", "run", "state", "validation loss", "images", *planned.space, box=None)
    for trial in trials:
        table.add_row(
            str(trial.number),
            trial.user_attrs.get("run_id", ""),
            trial.state.name.lower(),
            "" if trial.value is None else f"{trial.value:.4f}",
            f"{max(trial.intermediate_values, default=0):,}",
            *(_short(trial.params.get(name, "")) for name in planned.space),
        )
    console().print(table)
    pages = sweeps.write_plots(study, folder)
    click.echo(f"Files in {folder}: {', '.join(['trials.csv', *pages])}")
    if trials and trials[0].state.name == "COMPLETE":
        where = f"--env {env} " if env else ""
        again = shlex.quote(redact_text(planned.params(trials[0].params)))
        click.echo(f"Best model: {folder.parents[1] / 'runs' / trials[0].user_attrs['run_id'] / 'model'}")
        click.echo(f"To repeat the best trial: kedro run {where}--params {again}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
