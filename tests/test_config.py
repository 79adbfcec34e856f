"""Groups, options and experiments: which file wins, and what is said about a wrong name."""

from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.parameters import UserError, check_parameters
from ddpm_kedro.settings import CONFIG_LOADER_ARGS
from tests.conftest import ROOT, Project

OPTIONS = [(path.parent.name, path.stem) for path in sorted((ROOT / "conf/base/groups").glob("*/*.yml"))]


def load(folder: Path = ROOT / "conf", env: str | None = None, **runtime: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in runtime.items():
        group, key = name.split("__")
        nested.setdefault(group, {})[key] = value
    loader = GroupConfigLoader(str(folder), env=env, runtime_params=nested, **CONFIG_LOADER_ARGS)
    return loader["parameters"]


def test_the_private_method_that_is_overridden_is_still_there() -> None:
    assert callable(OmegaConfigLoader._read_raw_config)
    assert callable(OmegaConfigLoader._read_dir_configs)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="-".join)
def test_every_shipped_option_is_accepted(group: str, option: str) -> None:
    parameters = load(**{f"use__{group}": option})
    assert check_parameters(parameters).use[group] == option


@pytest.mark.parametrize("env", ["smoke", None])
def test_the_shipped_environments_are_accepted(env: str | None) -> None:
    assert check_parameters(load(env=env)).dataset.source == "mnist5k"


def test_an_option_is_chosen_and_then_changed() -> None:
    parameters = load(use__optimizer="sgd", optimizer__lr=1e-4)
    assert parameters["optimizer"]["name"] == "sgd"
    assert parameters["optimizer"]["momentum"] == 0.95
    assert parameters["optimizer"]["lr"] == 1e-4


def test_flips_are_off_for_digits_and_on_for_cifar10() -> None:
    assert not load()["augmentation"]["horizontal_flip"]
    assert load(use__dataset="cifar10")["augmentation"]["horizontal_flip"]


def test_an_experiment_chooses_options_and_overrides_them() -> None:
    parameters = load(use__experiment="cifar10")
    assert parameters["use"] == {"dataset": "cifar10", "model": "ho2020", "optimizer": "adam", "experiment": "cifar10"}
    assert parameters["dataset"]["source"] == "cifar10"
    assert parameters["model"]["width"] == 128
    assert parameters["optimizer"]["lr"] == 2e-4
    assert parameters["augmentation"]["horizontal_flip"]
    assert parameters["diffusion"]["target"] == "noise"


def test_the_command_line_wins_over_an_experiment_and_its_choices() -> None:
    parameters = load(use__experiment="cifar10", use__model="digits", optimizer__lr=5e-5)
    assert parameters["model"]["width"] == 16
    assert parameters["dataset"]["source"] == "cifar10"
    assert parameters["optimizer"]["lr"] == 5e-5


def test_later_wins_base_option_experiment_environment_command_line(project: Project) -> None:
    conf = project.folder / "conf"
    digits = (conf / "base/groups/model/digits.yml").read_text()
    (conf / "base/groups/model/wide.yml").write_text(
        digits.replace("width: 16", "width: 64").replace("dropout: 0.0", "dropout: 0.1")
    )
    (conf / "base/groups/experiment/mine.yml").write_text("use: {model: wide}\nmodel: {dropout: 0.2}\n")
    assert (
        load(conf, use__model="wide")["model"] | {"width": 64, "dropout": 0.1} == load(conf, use__model="wide")["model"]
    )
    assert load(conf, use__experiment="mine")["model"]["dropout"] == 0.2
    (conf / "local/parameters.yml").write_text("model: {dropout: 0.3}")
    local = load(conf, use__experiment="mine")
    assert (local["model"]["dropout"], local["model"]["width"]) == (0.3, 64)
    assert load(conf, use__experiment="mine", model__dropout=0.4)["model"]["dropout"] == 0.4


def test_an_experiment_can_be_chosen_in_a_file(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("use: {experiment: cifar10}")
    assert load(project.folder / "conf")["dataset"]["source"] == "cifar10"
    assert load(project.folder / "conf", use__dataset="svhn")["dataset"]["source"] == "svhn"


def test_an_environment_changes_only_what_it_names(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("training: {seed: 5}")
    parameters = load(project.folder / "conf", training__batch_size=7)
    assert (parameters["training"]["seed"], parameters["training"]["batch_size"]) == (5, 7)
    assert parameters["training"]["label_dropout"] == 0.1


def test_own_options_lie_in_local(project: Project) -> None:
    folder = project.folder / "conf/local/groups/model"
    folder.mkdir(parents=True)
    base = (project.folder / "conf/base/groups/model/digits.yml").read_text()
    (folder / "mine.yml").write_text(base.replace("width: 16", "width: 40"))
    assert load(project.folder / "conf", use__model="mine")["model"]["width"] == 40
    with pytest.raises(UserError, match="digits, ho2020, mine"):
        load(project.folder / "conf", use__model="none")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ({"use__model": "digit"}, r"Unknown option use.model=digit. Did you mean 'digits'\? Accepted: digits, ho2020."),
        ({"use__dataset": "cifar-10"}, r"Unknown option use.dataset=cifar-10. Did you mean 'cifar10'"),
        ({"use__experiment": "cifra10"}, r"Unknown option use.experiment=cifra10. Did you mean 'cifar10'"),
        ({"use__modell": "digits"}, r"Unknown group 'modell' in use.modell=digits. Did you mean 'model'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(use: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**use)


def test_use_without_a_group_is_an_error(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("use: cifar10")
    with pytest.raises(UserError, match="use = 'cifar10' names no group"):
        load(project.folder / "conf")


@pytest.mark.parametrize("content", ["training: {seed: [", "training:\n\tseed: 1", "a: b: c"])
def test_a_file_that_is_not_yaml_is_named(content: str, project: Project) -> None:
    path = project.folder / "conf/local/parameters.yml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"conf/local/parameters.yml.*Check its indentation"):
        load(project.folder / "conf")


@pytest.mark.parametrize("content", ["just words", "- a\n- b"])
def test_a_file_without_parameters_is_named(content: str, project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text(content)
    with pytest.raises(UserError, match=r"parameters.yml holds no parameters|Unknown parameter 'just words'"):
        load(project.folder / "conf")
