"""Sweeps: parsing of values, order of trials, resuming after a kill."""

import csv
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import wandb
from click.testing import CliRunner, Result
from kedro.framework.hooks import hook_impl
from kedro.framework.startup import bootstrap_project
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ddpm_kedro import sweep
from ddpm_kedro.cli import cli
from ddpm_kedro.datasets.checkpoint import CheckpointDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.hooks.graceful_stop import GracefulStop
from ddpm_kedro.hooks.trial import TRIAL
from tests.conftest import Project
from tests.hooks.wandb_file import OfflineRun

FEW = "training.num_images=48,training.report_interval=16,training.preview_images=0,sampling.num_images=1"


@pytest.fixture
def project(project: Project, smoke_data: Path) -> Project:
    """A project whose images are ingested."""
    return project.adopt_images(smoke_data)


def kedro_sweep(project: Project, *arguments: str, params: str = FEW) -> Result:
    words = ["sweep", "--env", "smoke", *arguments, "--params", params]
    return CliRunner().invoke(cli, words, obj=bootstrap_project(project.folder))


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def trials(project: Project, name: str) -> list[optuna.trial.FrozenTrial]:
    path = project.data / "sweeps" / name / "sweep.db"
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}").trials


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("use.optimizer=adam,sgd", CategoricalDistribution(["adam", "sgd"])),
        ("optimizer.lr=1e-4,1e-3", CategoricalDistribution(["1e-4", "1e-3"])),
        ("optimizer.lr=1e-4..1e-2", FloatDistribution(1e-4, 1e-2)),
        ("optimizer.lr=1e-4..1e-2:log", FloatDistribution(1e-4, 1e-2, log=True)),
        ("model.dropout=0..0.3:0.1", FloatDistribution(0, 0.3, step=0.1)),
        ("model.width=16..48:16", IntDistribution(16, 48, step=16)),
        ("training.batch_size=8..128:log", IntDistribution(8, 128, log=True)),
        ("training.num_images=1_000..2_000", IntDistribution(1000, 2000)),
    ],
)
def test_values_and_ranges_are_parsed(argument: str, expected: Any) -> None:
    assert sweep.read_space((argument,)) == {argument.split("=", maxsplit=1)[0]: expected}


@pytest.mark.parametrize(
    "argument",
    ["optimizer.lr", "optimizer.lr=", "=1,2", "optimizer.lr=1e-2..1e-4", "a.b=x..y", "a.b=[1],[2]", "a.b=1,,2"],
)
def test_invalid_values_are_rejected_with_examples(argument: str) -> None:
    with pytest.raises(UserError, match=r"Write use.model=digits,small or optimizer.lr="):
        sweep.read_space((argument,))


def test_a_repeated_name_is_rejected() -> None:
    with pytest.raises(UserError, match="repeats a name"):
        sweep.read_space(("a.b=1,2", "a.b=3"))


def test_spaces_are_ignored() -> None:
    assert sweep.read_space(("a.b = x, y",)) == {"a.b": CategoricalDistribution(["x", "y"])}


@pytest.mark.parametrize(
    ("arguments", "trials", "expected"),
    [
        (["a.b=1,2", "c.d=1..3:1"], None, "grid"),
        (["a.b=1,2"], 5, "tpe"),
        (["a.b=1,2", "c.d=1..3"], None, "tpe"),
        (["c.d=1e-4..1e-2:log"], None, "tpe"),
    ],
)
def test_the_default_sampler_is_grid_if_all_values_or_steps_are_given(
    arguments: list[str], trials: int | None, expected: str
) -> None:
    assert sweep.default_sampler(tuple(arguments), trials) == expected


def test_grid_values_are_listed_and_a_range_without_a_step_is_rejected() -> None:
    varied = sweep.read_space(("a.b=x,y", "c.d=16..48:16", "e.f=0..0.3:0.1"))
    assert sweep.grid_values(varied) == {"a.b": ["x", "y"], "c.d": [16, 32, 48], "e.f": [0.0, 0.1, 0.2, 0.3]}
    with pytest.raises(UserError, match=r"A grid needs a.b as listed values, or as a range with a step"):
        sweep.grid_values(sweep.read_space(("a.b=1e-4..1e-2",)))


def test_a_grid_is_run_completely_and_ranked(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    arguments = ("optimizer.lr=1e-3,1e-2", "training.batch_size=4,8", "--name", "mine")
    output = done(kedro_sweep(project, *arguments, params=f"{FEW},tracking.mode=offline"))
    wandb.teardown()
    found = trials(project, "mine")
    tried = {(trial.params["optimizer.lr"], trial.params["training.batch_size"]) for trial in found}
    assert tried == {(lr, size) for lr in ("1e-3", "1e-2") for size in ("4", "8")}
    kept = {folder.name for folder in (project.data / "runs").iterdir() if (folder / "parameters.json").exists()}
    assert {trial.user_attrs["run_id"] for trial in found} == kept
    assert len(kept) == 4
    for trial in found:
        with (project.data / "runs" / trial.user_attrs["run_id"] / "training_history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert trial.value == float(rows[-1]["validation_loss"])
        assert trial.intermediate_values == {int(float(r["images_seen"])): float(r["validation_loss"]) for r in rows}
    ranked = sorted(found, key=lambda trial: trial.value)
    lines = [line.split() for line in output.splitlines() if " complete " in line]
    assert [line[1] for line in lines] == [trial.user_attrs["run_id"] for trial in ranked]
    best = ",".join(f"{name}={value}" for name, value in ranked[0].params.items())
    assert f"kedro run --env smoke --params {FEW},tracking.mode=offline,{best}" in output
    for name in ("history", "validation_loss", "parameters", "combinations", "importances"):
        assert "plotly" in (project.data / f"sweeps/mine/{name}.html").read_text().lower()
    assert len((project.data / "sweeps/mine/trials.csv").read_text().splitlines()) == 5
    tracked = OfflineRun(project.data / "wandb")
    assert tracked.ids == kept
    assert tracked.config["tracking.group"] == "mine"
    caplog.clear()
    done(kedro_sweep(project, *arguments, params=f"{FEW},tracking.mode=offline"))
    assert "0 of 4 trials to go" in caplog.text
    assert len(trials(project, "mine")) == 4


def test_a_trial_is_pruned(project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With a threshold that no loss reaches, each trial ends at its first report, without a model."""
    monkeypatch.setitem(sweep.PRUNERS, "median", lambda: optuna.pruners.ThresholdPruner(upper=1e-9))
    output = done(kedro_sweep(project, "training.seed=1,2,3", "--name", "mine"))
    found = trials(project, "mine")
    assert [trial.state for trial in found] == [TrialState.PRUNED] * 3
    assert [list(trial.intermediate_values) for trial in found] == [[16]] * 3
    assert output.count(" pruned ") == 3
    assert caplog.text.count("Pruning this trial") == 3
    assert not (project.data / "06_models/model").exists()
    left = CheckpointDataset(filepath=str(project.data / "06_models/checkpoint.pt"), archive="").load()
    assert (left.run_id, left.images_seen) == (found[-1].user_attrs["run_id"], 24)
    assert "To repeat the best trial" not in output


def test_a_killed_sweep_resumes_the_trial_that_was_killed(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("optimizer.lr=1e-4..1e-2:log", "--trials", "3", "--sampler", "random", "--name", "mine")
    params = f"{FEW},training.checkpoint_interval=16"
    saved = []

    def kill(self: GracefulStop, dataset_name: str, data: Any) -> None:
        saved.append(dataset_name)
        if saved.count("training_history") == 5:  # the second report of the second trial: its first checkpoint is there
            raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(GracefulStop, "after_dataset_saved", hook_impl(kill))
        assert kedro_sweep(project, *arguments, params=params).exit_code == 137
    assert [trial.state for trial in trials(project, "mine")] == [TrialState.COMPLETE, TrialState.RUNNING]
    caplog.clear()
    done(kedro_sweep(project, *arguments, params=params))
    assert "resumes after 16 images" in caplog.text
    found = trials(project, "mine")
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert found[2].params == found[1].params
    assert len({trial.params["optimizer.lr"] for trial in found}) == 3
    assert len(trials(project, "mine")) == 4
    done(kedro_sweep(project, *arguments, params=params))
    assert len(trials(project, "mine")) == 4


@pytest.mark.parametrize("killed_at", range(1, 7))
def test_a_killed_grid_is_completed_and_no_trial_runs_twice(killed_at: int, tmp_path: Path) -> None:
    asked = sweep.Sweep(sweep.read_space(("a=x,y", "b=1..3:1")), "", "grid", None, "none", 0, {})
    ran: list[str] = []

    def run(params: str) -> None:
        ran.append(params)
        if len(ran) == killed_at:
            raise SystemExit(137)
        TRIAL.value, TRIAL.run_id = len(ran), "a-run"

    with pytest.raises(SystemExit):
        sweep.run_sweep(asked, sweep.open_study(asked, tmp_path / "grid"), run)
    study = sweep.open_study(asked, tmp_path / "grid")
    sweep.run_sweep(asked, study, run)
    assert len(ran) == 7
    assert {*ran} == {f"a={a},b={b}" for a in "xy" for b in (1, 2, 3)}
    assert len(sweep.finished_trials(study)) == 6
    assert sweep.finished_trials(sweep.open_study(asked, tmp_path / "grid"))[0].value == min(
        set(range(1, 8)) - {killed_at}
    )


def test_the_result_of_a_trial_with_the_same_parameters_is_reused(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    done(kedro_sweep(project, "training.seed=7", "--trials", "2", "--sampler", "random", "--name", "mine"))
    first, second = trials(project, "mine")
    assert (first.value, first.user_attrs) == (second.value, second.user_attrs)
    assert caplog.text.count("Generating 1 images") == 1
    assert not (project.data / "06_models/feature_extractor").exists()  # trials are ranked by their validation loss


def test_conflicting_values_fail_one_trial(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    output = done(kedro_sweep(project, "model.width=12", "model.norm_groups=4,8", "--name", "mine"))
    states = [trial.state.name for trial in trials(project, "mine")]
    assert sorted(states) == ["COMPLETE", "FAIL"]
    assert "failed: Parameter 'model': norm_groups = 8 does not divide" in caplog.text
    assert " fail " in output


def test_a_sweep_fails_if_every_trial_fails(project: Project) -> None:
    result = kedro_sweep(project, "training.batch_size=8,16", "optimizer.lr=1e30", "--name", "mine")
    assert result.exit_code == 1
    assert "Every trial failed" in result.output
    assert [trial.state.name for trial in trials(project, "mine")] == ["FAIL"] * 2


@pytest.mark.parametrize(
    "trouble", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"]
)
def test_an_external_error_ends_the_sweep_and_fails_no_trial(
    trouble: BaseException, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("training.seed=1", "--name", "mine")

    def fail(*_: Any, **__: Any) -> None:
        raise trouble

    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.datasets.samples.SamplesDataset.save", fail)
        result = kedro_sweep(project, *arguments)
    assert result.exit_code == 1
    assert "Aborted" in result.output or "No space left" in result.output
    assert [trial.state.name for trial in trials(project, "mine")] == ["RUNNING"]
    done(kedro_sweep(project, *arguments))
    assert [trial.state.name for trial in trials(project, "mine")] == ["FAIL", "COMPLETE"]


def test_a_signal_after_a_trial_was_pruned_ends_the_sweep(tmp_path: Path) -> None:
    asked = sweep.Sweep(sweep.read_space(("a=x,y",)), "", "grid", None, "none", 0, {})

    def run(params: str) -> None:
        TRIAL.pruned = True
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        sweep.run_sweep(asked, sweep.open_study(asked, tmp_path / "s"), run)


@pytest.mark.parametrize("name", ["2026", "a-b.c"])
def test_a_name_may_look_like_a_number(name: str, project: Project) -> None:
    done(kedro_sweep(project, "training.seed=1", "--name", name))
    assert [trial.state.name for trial in trials(project, name)] == ["COMPLETE"]


def test_a_changed_configuration_is_rejected(project: Project) -> None:
    done(kedro_sweep(project, "training.seed=1", "--name", "mine"))
    path = project.folder / "conf/smoke/parameters.yml"
    path.write_text(path.read_text().replace("width: 8", "width: 12"))
    result = kedro_sweep(project, "training.seed=1", "--name", "mine")
    assert result.exit_code == 1
    assert "fixed.model.width: 8 → 12" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampling.seed=1,2"], "sampling.seed has no effect on a training"),
        (["optimizer.momentum=0.5,0.9"], "adam has no momentum"),
        (["training.seed=1,2", "--name", "a/b"], "a name may contain letters"),
        (["optimizer.lrr=1,2"], "Unknown parameter 'optimizer.lrr'. Did you mean 'lr'"),
        (["optimiser.lr=1,2"], "Unknown parameter 'optimiser'. Did you mean 'optimizer'"),
        (["use.optimizer=adam,sdg"], "Unknown option use.optimizer=sdg. Did you mean 'sgd'"),
        (["training.batch_size=8,many"], "Parameter 'training.batch_size' = 'many'"),
        (["optimizer.lr=-1..1", "--trials", "2"], "Parameter 'optimizer.lr' = -1: input should be greater than 0"),
        (["optimizer.lr=1e-4..1e-2"], "--sampler tpe needs --trials"),
        (["optimizer.lr=1e-4..1e-2", "--sampler", "grid"], "A grid needs optimizer.lr as listed values"),
        (["optimizer.lr"], "names no values"),
    ],
)
def test_invalid_arguments_are_rejected_before_the_first_trial(
    arguments: list[str], message: str, project: Project
) -> None:
    result = kedro_sweep(project, *arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert not (project.data / "sweeps").exists()


def test_another_sweep_with_the_same_name_is_rejected(project: Project) -> None:
    done(kedro_sweep(project, "training.seed=1", "--name", "mine"))
    result = kedro_sweep(project, "training.seed=1,2", "--name", "mine")
    assert result.exit_code == 1
    assert "belongs to another sweep: varied.training.seed" in result.output


def test_losses_that_are_not_comparable_are_reported(project: Project) -> None:
    assert "not comparable if use.diffusion differs" in done(
        kedro_sweep(project, "use.diffusion=cosine_v,ho2020", "--name", "mine")
    )


def test_a_missing_optuna_is_reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "ddpm_kedro.sweep")
    monkeypatch.delattr("ddpm_kedro.sweep")
    result = kedro_sweep(project, "training.seed=1,2")
    assert result.exit_code == 1
    assert "kedro sweep needs Optuna" in result.output


def test_an_unnamed_sweep_is_resumed_by_the_same_command(project: Project) -> None:
    for _ in range(2):
        done(kedro_sweep(project, "training.seed=1"))
    [folder] = [path for path in (project.data / "sweeps").iterdir() if path.is_dir()]
    assert len(trials(project, folder.name)) == 1
