"""Sweep parameters: Optuna chooses the values of each trial and stores the results; a trial is an ordinary run."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import optuna
from click import ClickException
from optuna import distributions as space
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from plotly.offline import get_plotlyjs

from ddpm_kedro.atomic import write_text
from ddpm_kedro.errors import ConflictError, DivergedError, UserError, causes
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.provenance import differences

logger = logging.getLogger(__name__)
PRUNED = 128  # the exit status of a stop without a signal
Values = space.CategoricalDistribution | space.IntDistribution | space.FloatDistribution
Space = dict[str, Values]
RANGE = re.compile(r"(?P<low>[^:,]+?)\.\.(?P<high>[^:,]+)(:(?P<how>[^,]+))?")
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}


@dataclass(frozen=True)
class Sweep:
    """Describe a sweep.

    Attributes:
        space: values of the parameters that vary, by full name.
        fixed: other parameters, as text for ``--params``.
        sampler: name of the sampler: grid, random or tpe.
        trials: number of trials; None for the whole grid.
        pruner: name of the pruner: none, median or halving.
        seed: seed of the sampler.
        config: every parameter that affects a training. A sweep resumes only if all that do not vary are unchanged.
    """

    space: Space
    fixed: str
    sampler: str
    trials: int | None
    pruner: str
    seed: int
    config: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return what must not change when a sweep is resumed, as plain data."""
        varied = {name: space.distribution_to_json(values) for name, values in self.space.items()}
        return {"varied": varied, "fixed": {name: value for name, value in self.config.items() if name not in varied}}

    def candidates(self, name: str) -> list[Any]:
        """Return the listed values, or both ends of a range: the values to check before the first trial."""
        values = self.space[name]
        return list(values.choices) if isinstance(values, space.CategoricalDistribution) else [values.low, values.high]

    def params(self, chosen: dict[str, Any]) -> str:
        """Return the parameters of a trial as text for ``--params``."""
        varied = (f"{name}={value}" for name, value in chosen.items())
        return ",".join([*([self.fixed] if self.fixed else []), *varied])


def read_space(arguments: tuple[str, ...]) -> Space:
    """Parse ``name=a,b,c``, ``name=low..high``, ``name=low..high:step`` and ``name=low..high:log``.

    Raises:
        UserError: for any other text.
    """
    found: Space = {}
    for argument in arguments:
        name, _, text = (part.strip() for part in argument.partition("="))
        values = [value.strip() for value in text.split(",")]
        if not (name and all(values)) or name in found:
            raise UserError(f"'{argument}' {'repeats a name' if name in found else 'names no values'}. {_EXAMPLES}")
        if "[" in text:
            raise UserError(f"'{argument}' has lists as values: make them options of a group instead. {_EXAMPLES}")
        matched = RANGE.fullmatch(text)
        try:
            found[name] = _range(**matched.groupdict()) if matched else space.CategoricalDistribution(values)
        except ValueError as error:
            raise UserError(f"'{argument}' is not a range: {error}. {_EXAMPLES}") from error
    return found


_EXAMPLES = "Write use.model=digits,small or optimizer.lr=1e-4..1e-2:log or model.width=16..48:16."


def _range(low: str, high: str, how: str | None) -> Values:
    log, step = how == "log", None if how in {None, "log"} else str(how)
    if all(re.fullmatch(r"-?[\d_]+", part) for part in (low, high, step or "1")):
        return space.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return space.FloatDistribution(float(low), float(high), log=log, step=float(step) if step else None)


def default_sampler(arguments: tuple[str, ...], trials: int | None) -> str:
    """Return grid if all values or steps are given, but no number of trials; otherwise tpe."""
    ranges = [RANGE.fullmatch(argument.partition("=")[2].strip()) for argument in arguments]
    without_step = any(found and found["how"] in {None, "log"} for found in ranges)
    return "tpe" if without_step or trials is not None else "grid"


def check_sampler(sweep: Sweep) -> None:
    """Raise UserError for a grid with a range without a step, and for another sampler without a number of trials."""
    if sweep.sampler == "grid":
        grid_values(sweep.space)
    elif sweep.trials is None:
        raise UserError(f"--sampler {sweep.sampler} needs --trials, the number of runs.")


def grid_values(varied: Space) -> dict[str, list[Any]]:
    """Return all values of each parameter; raise UserError for a range without a step."""
    found: dict[str, list[Any]] = {}
    for name, values in varied.items():
        if isinstance(values, space.CategoricalDistribution):
            found[name] = list(values.choices)
            continue
        if values.log or values.step is None:
            raise UserError(f"A grid needs {name} as listed values, or as a range with a step: {name}=low..high:step")
        count = round((values.high - values.low) / values.step) + 1
        found[name] = [round(values.low + index * values.step, 12) for index in range(count)]
    return found


def open_study(sweep: Sweep, folder: Path) -> Study:
    """Open Optuna's study in ``sweep.db``; trials that were interrupted are queued again.

    Raises:
        UserError: if the folder belongs to another sweep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # this module logs each trial
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'sweep.db'}", study_name=folder.name, load_if_exists=True, direction="minimize"
    )
    earlier = study.user_attrs.get("sweep", sweep.describe())
    if changed := differences(earlier, sweep.describe()):
        raise UserError(f"{folder} belongs to another sweep: {'; '.join(changed)}. Choose another --name.")
    study.set_user_attr("sweep", sweep.describe())
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"goes_on_from": trial.number},
            system_attrs=trial.system_attrs,
        )
        study.add_trial(again)
    study.sampler, study.pruner = _sampler(sweep, len(study.trials)), PRUNERS[sweep.pruner]()
    return study


def run_sweep(sweep: Sweep, study: Study, run: Callable[[str], None]) -> None:
    """Run trials until the number of trials is reached.

    Args:
        run: starts a run with parameters as text for ``--params``.

    Raises:
        UserError: if every trial failed.
    """
    total = prod(len(values) for values in grid_values(sweep.space).values()) if sweep.trials is None else sweep.trials
    left = total - len(finished_trials(study))
    logger.info("Sweep %s: %d of %d trials to go", study.study_name, max(left, 0), total)
    if left > 0:
        reason = None
        try:
            study.optimize(lambda trial: _run_trial(sweep, study, trial, run), left, catch=(ClickException,))
        except _Interrupted as end:
            reason = end.reason
        if reason is not None:  # raised outside of the handler: its context must not be _Interrupted
            raise reason
    if not any(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in study.trials):
        raise UserError("Every trial failed; the errors are logged above.")


def _run_trial(sweep: Sweep, study: Study, trial: optuna.Trial, run: Callable[[str], None]) -> float:
    """Run a trial and return its last validation loss; an earlier trial with the same parameters is reused."""
    values = {name: _suggest(trial, name, distribution) for name, distribution in sweep.space.items()}
    logger.info("Trial %d: %s", trial.number, sweep.params(values))
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if earlier := next((each for each in complete if each.params == values), None):
        logger.info("Same parameters as trial %d; its result is reused.", earlier.number)
        trial.set_user_attr("run_id", earlier.user_attrs["run_id"])
        return earlier.value if earlier.value is not None else float("nan")
    with TRIAL.of(trial) as current:
        try:
            run(sweep.params(values))
        except SystemExit as stop:
            if stop.code != PRUNED:
                raise
        except (ClickException, KeyboardInterrupt) as error:
            if not any(isinstance(cause, ConflictError | DivergedError) for cause in causes(error)):
                # The disk, the internet connection or Ctrl-C, not the trial's parameters.
                raise _Interrupted(error) from error
            logger.error("Trial %d failed: %s", trial.number, error)  # noqa: TRY400  a user error has no traceback
            raise
        trial.set_user_attr("run_id", current.run_id)
        if current.pruned:
            raise optuna.TrialPruned
        return current.value


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that were not interrupted, best first."""
    interrupted = {trial.user_attrs.get("goes_on_from") for trial in study.trials}
    found = [trial for trial in study.trials if trial.state.is_finished() and trial.number not in interrupted]
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted(found, key=lambda trial: (order.index(trial.state), trial.value or 0.0, trial.number))


def write_plots(study: Study, folder: Path) -> list[str]:
    """Write Optuna's plots as HTML pages and all trials as a table; return the names of the pages."""
    write_text(folder / "trials.csv", study.trials_dataframe().to_csv(index=False))
    if len(study.get_trials(states=(TrialState.COMPLETE,))) < 2:
        return []
    metric = "validation loss"
    losses = optuna.visualization.plot_intermediate_values(study)
    losses.update_layout(title="Trials", xaxis_title="images seen", yaxis_title=metric)
    plots = {
        "history": optuna.visualization.plot_optimization_history(study, target_name=metric),
        "validation_loss": losses,
        "parameters": optuna.visualization.plot_slice(study, target_name=metric),
        "combinations": optuna.visualization.plot_parallel_coordinate(study, target_name=metric),
        "importances": optuna.visualization.plot_param_importances(study, target_name=metric),
    }
    write_text(folder / "plotly.min.js", get_plotlyjs())
    for name, plot in plots.items():
        write_text(folder / f"{name}.html", plot.to_html(include_plotlyjs="directory"))
    return [f"{name}.html" for name in plots]


def _sampler(sweep: Sweep, num_trials: int) -> BaseSampler:
    seed = sweep.seed + num_trials  # otherwise a resumed sweep would sample its first trials again
    match sweep.sampler:
        case "grid":
            return GridSampler(grid_values(sweep.space), seed=sweep.seed)  # the seed gives the order of the grid
        case "random":
            return RandomSampler(seed=seed)
        case _:
            return TPESampler(seed=seed)


def _suggest(trial: optuna.Trial, name: str, values: Values) -> Any:
    if isinstance(values, space.CategoricalDistribution):
        return trial.suggest_categorical(name, values.choices)
    suggest: Any = trial.suggest_int if isinstance(values, space.IntDistribution) else trial.suggest_float
    return suggest(name, values.low, values.high, step=values.step, log=values.log)


class _Interrupted(BaseException):
    """End a sweep without a result for the current trial, which stays RUNNING in Optuna: the next start queues it."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason
