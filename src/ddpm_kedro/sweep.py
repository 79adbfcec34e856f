"""Sweeps: many runs with other parameters each. Optuna chooses and remembers them; each is an ordinary run."""

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

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.errors import ConflictError, DivergedError, UserError
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.provenance import differences

logger = logging.getLogger(__name__)
PRUNED = 128  # the exit status of a stop that no signal asked for
Space = dict[str, space.BaseDistribution]
RANGE = re.compile(r"(?P<low>[^:,]+?)\.\.(?P<high>[^:,]+)(:(?P<how>[^,]+))?")
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}


@dataclass(frozen=True)
class Sweep:
    """What is tried.

    Attributes:
        space: what varies, by the parameter's full name.
        fixed: what does not, as for ``--params``.
        sampler: grid, random or tpe.
        trials: how many in all; None tries a grid to its end.
        pruner: none, median or halving.
        seed: of the sampler.
        config: every parameter that shapes a run but for what varies: a sweep goes on only where it is the same.
    """

    space: Space
    fixed: str
    sampler: str
    trials: int | None
    pruner: str
    seed: int
    config: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """What must not change when a sweep goes on, as plain data."""
        varied = {name: space.distribution_to_json(values) for name, values in self.space.items()}
        return {"varied": varied, "fixed": {name: value for name, value in self.config.items() if name not in varied}}

    def params(self, chosen: dict[str, Any]) -> str:
        """The parameters of a trial, as for ``--params``."""
        varied = (f"{name}={value}" for name, value in chosen.items())
        return ",".join([*([self.fixed] if self.fixed else []), *varied])


def read_space(arguments: tuple[str, ...]) -> Space:
    """What varies, from ``name=a,b,c``, ``name=low..high``, ``name=low..high:step`` and ``name=low..high:log``.

    Raises:
        UserError: for anything else.
    """
    found: Space = {}
    for argument in arguments:
        name, _, text = (part.strip() for part in argument.partition("="))
        values = [value.strip() for value in text.split(",")]
        if not (name and all(values)) or name in found:
            raise UserError(f"'{argument}' names no values{' anew' if name in found else ''}. {_EXAMPLES}")
        if "[" in text:
            raise UserError(f"'{argument}' lists lists: make them options of a group instead. {_EXAMPLES}")
        matched = RANGE.fullmatch(text)
        try:
            found[name] = _range(**matched.groupdict()) if matched else space.CategoricalDistribution(values)
        except ValueError as error:
            raise UserError(f"'{argument}' is no range: {error}. {_EXAMPLES}") from error
    return found


_EXAMPLES = "Write use.model=digits,small or optimizer.lr=1e-4..1e-2:log or model.width=16..48:16."


def _range(low: str, high: str, how: str | None) -> space.BaseDistribution:
    log, step = how == "log", None if how in {None, "log"} else str(how)
    if all(re.fullmatch(r"-?[\d_]+", part) for part in (low, high, step or "1")):
        return space.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return space.FloatDistribution(float(low), float(high), log=log, step=float(step) if step else None)


def usual_sampler(arguments: tuple[str, ...], trials: int | None) -> str:
    """A grid where values or steps are given for all and no number of trials was asked for, else TPE."""
    ranges = [RANGE.fullmatch(argument.partition("=")[2].strip()) for argument in arguments]
    endless = any(found and found["how"] in {None, "log"} for found in ranges)
    return "tpe" if endless or trials is not None else "grid"


def candidates(values: space.BaseDistribution) -> list[Any]:
    """The values at the edges of what varies, or all that are listed: what can be checked beforehand."""
    if isinstance(values, space.CategoricalDistribution):
        return list(values.choices)
    assert isinstance(values, space.IntDistribution | space.FloatDistribution)
    return [values.low, values.high]


def check(sweep: Sweep) -> None:
    """Raise UserError where the sampler cannot try this."""
    if sweep.sampler == "grid":
        grid(sweep.space)
    elif sweep.trials is None:
        raise UserError(f"--sampler {sweep.sampler} needs --trials, how many runs to try.")


def grid(varied: Space) -> dict[str, list[Any]]:
    """All values of each parameter.

    Raises:
        UserError: for a range without a step.
    """
    found: dict[str, list[Any]] = {}
    for name, values in varied.items():
        if isinstance(values, space.CategoricalDistribution):
            found[name] = list(values.choices)
            continue
        assert isinstance(values, space.IntDistribution | space.FloatDistribution)
        if values.log or values.step is None:
            raise UserError(f"A grid needs {name} as listed values, or as a range with a step: {name}=low..high:step")
        count = round((values.high - values.low) / values.step) + 1
        found[name] = [round(values.low + index * values.step, 12) for index in range(count)]
    return found


def open_study(sweep: Sweep, folder: Path) -> Study:
    """The sweep's memory, ``sweep.db`` in its folder; trials that a kill interrupted are put in line again.

    Raises:
        UserError: for a folder that holds another sweep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it would say is said here
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'sweep.db'}", study_name=folder.name, load_if_exists=True, direction="minimize"
    )
    earlier = study.user_attrs.get("sweep", sweep.describe())
    if changed := differences(earlier, sweep.describe()):
        raise UserError(f"{folder} holds another sweep: {'; '.join(changed)}. Choose another --name.")
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
    """Try until the number of trials is reached.

    Args:
        sweep: what is tried.
        study: its memory.
        run: makes a run with parameters as for ``--params``.
    """
    total = prod(len(values) for values in grid(sweep.space).values()) if sweep.trials is None else sweep.trials
    left = total - len(ended(study))
    logger.info("Sweep %s: %d of %d trials to go", study.study_name, max(left, 0), total)

    def objective(trial: optuna.Trial) -> float:
        chosen = {name: _suggest(trial, name, values) for name, values in sweep.space.items()}
        logger.info("Trial %d: %s", trial.number, sweep.params(chosen))
        if (same := _same(study, chosen)) is not None:
            logger.info("That was trial %d: nothing new to learn.", same.number)
            trial.set_user_attr("run_id", same.user_attrs["run_id"])
            return same.value if same.value is not None else float("nan")
        with TRIAL.of(trial) as watched:
            try:
                run(sweep.params(chosen))
            except SystemExit as stop:
                if stop.code != PRUNED:
                    raise
            except (ClickException, KeyboardInterrupt) as error:
                if not _belongs_to_the_trial(error):
                    raise _Ended(error) from error
                logger.error("Trial %d failed: %s", trial.number, error)  # noqa: TRY400  a person's mistake
                raise
            trial.set_user_attr("run_id", watched.run_id)
            if watched.pruned:
                raise optuna.TrialPruned
            return watched.value

    if left > 0:
        reason = None
        try:
            study.optimize(objective, n_trials=left, catch=(ClickException,))
        except _Ended as end:
            reason = end.reason
        if reason is not None:  # raised here, it is not in the context of what it is the reason of
            raise reason
    if not any(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in study.trials):
        raise UserError("No trial came to an end; what was wrong with each is said above.")


def ended(study: Study) -> list[FrozenTrial]:
    """All trials that came to an end of their own, the best first."""
    again = {trial.user_attrs.get("goes_on_from") for trial in study.trials}
    found = [trial for trial in study.trials if trial.state.is_finished() and trial.number not in again]
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted(found, key=lambda trial: (order.index(trial.state), trial.value or 0.0, trial.number))


def write_plots(study: Study, folder: Path) -> list[str]:
    """Optuna's own plots as pages for a browser, and all trials as a table; gives the names of the pages."""
    _write(folder / "trials.csv", study.trials_dataframe().to_csv(index=False))
    if len(study.get_trials(states=(TrialState.COMPLETE,))) < 2:
        return []
    figure = "validation loss"
    losses = optuna.visualization.plot_intermediate_values(study)
    losses.update_layout(title="Trials", xaxis_title="images seen", yaxis_title=figure)
    plots = {
        "history": optuna.visualization.plot_optimization_history(study, target_name=figure),
        "validation_loss": losses,
        "parameters": optuna.visualization.plot_slice(study, target_name=figure),
        "combinations": optuna.visualization.plot_parallel_coordinate(study, target_name=figure),
        "importances": optuna.visualization.plot_param_importances(study, target_name=figure),
    }
    _write(folder / "plotly.min.js", get_plotlyjs())
    for name, plot in plots.items():
        _write(folder / f"{name}.html", plot.to_html(include_plotlyjs="directory"))
    return [f"{name}.html" for name in plots]


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _sampler(sweep: Sweep, there: int) -> BaseSampler:
    seed = sweep.seed + there  # else a sweep that goes on would draw its first trials again
    match sweep.sampler:
        case "grid":
            return GridSampler(grid(sweep.space), seed=sweep.seed)  # the order of the grid follows from it
        case "random":
            return RandomSampler(seed=seed)
        case _:
            return TPESampler(seed=seed)


def _suggest(trial: optuna.Trial, name: str, values: space.BaseDistribution) -> Any:
    match values:
        case space.CategoricalDistribution():
            return trial.suggest_categorical(name, values.choices)
        case space.IntDistribution():
            return trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
        case space.FloatDistribution():
            return trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
    raise TypeError(values)


class _Ended(BaseException):
    """Ends a sweep and leaves its trial unfinished in Optuna's eyes, so that it is put in line again."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason


def _belongs_to_the_trial(error: BaseException | None) -> bool:
    """Whether these parameters are to blame, and not the disk, the network or a person at the keyboard."""
    while error is not None:
        if isinstance(error, ConflictError | DivergedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _same(study: Study, chosen: dict[str, Any]) -> FrozenTrial | None:
    """An earlier trial with these parameters that ran to its end."""
    done = study.get_trials(states=(TrialState.COMPLETE,))
    return next((trial for trial in done if trial.params == chosen), None)
