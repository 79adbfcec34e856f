"""Groups, options and experiments: which file wins, and the errors for wrong names."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
from kedro.utils import load_obj

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.datasets.catalog import RENAMED
from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import check_parameters
from ddpm_kedro.provenance import flatten
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


def test_a_loader_keeps_the_parameters_that_it_read_first(project: Project) -> None:
    loader = GroupConfigLoader(str(project.folder / "conf"), **CONFIG_LOADER_ARGS)
    before = loader["parameters"]
    loader["parameters"]["training"]["seed"] = 5
    (project.folder / "conf/local/parameters.yml").write_text("training: {seed: 6}")
    assert loader["parameters"] == before
    assert load(project.folder / "conf")["training"]["seed"] == 6


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
    assert load(use__dataset="cifar10")["use"]["augmentation"] == "flips"


def test_the_choices_of_an_option_yield_to_all_other_choices(project: Project) -> None:
    assert not load(use__dataset="cifar10", use__augmentation="none")["augmentation"]["horizontal_flip"]
    assert not load(use__experiment="course")["augmentation"]["horizontal_flip"]
    (project.folder / "conf/local/parameters.yml").write_text("use: {augmentation: none}")
    assert load(project.folder / "conf", use__dataset="cifar10")["use"]["augmentation"] == "none"


def test_an_experiment_chooses_options_and_overrides_them() -> None:
    parameters = load(use__experiment="cifar10")
    assert parameters["use"] == {
        "dataset": "cifar10",
        "augmentation": "flips",
        "model": "ho2020",
        "diffusion": "ho2020",
        "optimizer": "ho2020",
        "training": "ho2020",
        "experiment": "cifar10",
    }
    assert parameters["dataset"]["source"] == "cifar10"
    assert parameters["model"]["width"] == 128
    assert parameters["optimizer"]["lr"] == 2e-4
    assert parameters["augmentation"]["horizontal_flip"]
    assert parameters["diffusion"]["target"] == "noise"


def test_the_experiments_of_the_course_change_one_thing_each() -> None:
    base = dict(flatten(load(use__experiment="course")))
    assert (base["model.width"], base["optimizer.lr"], base["training.batch_size"]) == (72, 1e-5, 128)
    assert base["training.num_images"] == 100 * 50_000
    assert not base["augmentation.horizontal_flip"]
    expected = {
        "course_flips": {"use.augmentation": "flips", "augmentation.horizontal_flip": True},
        "course_small": {"use.model": "small", "model.width": 36},
        "course_sgd": {
            "use.optimizer": "course_sgd",
            "optimizer.name": "sgd",
            "optimizer.lr": 1e-4,
            "optimizer.momentum": 0.95,
        },
    }
    for name, changes in expected.items():
        other = dict(flatten(load(use__experiment=name)))
        differing = {key: value for key, value in other.items() if base.get(key) != value}
        assert differing == {"use.experiment": name, **changes}


def test_an_experiment_starts_from_another_and_wins_over_it(project: Project) -> None:
    folder = project.folder / "conf/local/groups/experiment"
    folder.mkdir(parents=True)
    (folder / "first.yml").write_text("use: {optimizer: sgd, model: ho2020}\nsampling: {seed: 1, num_images: 11}")
    (folder / "second.yml").write_text("use: {experiment: first, optimizer: adamw}\nsampling: {seed: 2}")
    (folder / "third.yml").write_text("use: {experiment: second}\nsampling: {batch_size: 3}")
    found = load(project.folder / "conf", use__experiment="third")
    chosen = {"model": "ho2020", "optimizer": "adamw", "experiment": "third"}
    assert found["use"] == load()["use"] | chosen
    assert [found["sampling"][name] for name in ("seed", "num_images", "batch_size")] == [2, 11, 3]
    (project.folder / "conf/local/parameters.yml").write_text("use: {experiment: second}")
    assert load(project.folder / "conf")["use"]["experiment"] == "second"


def test_experiments_that_start_from_each_other_are_rejected(project: Project) -> None:
    folder = project.folder / "conf/local/groups/experiment"
    folder.mkdir(parents=True)
    (folder / "hen.yml").write_text("use: {experiment: egg}")
    (folder / "egg.yml").write_text("use: {experiment: hen}")
    with pytest.raises(UserError, match="The experiments hen and egg start from each other"):
        load(project.folder / "conf", use__experiment="hen")


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


def test_options_that_choose_options(project: Project) -> None:
    groups = project.folder / "conf/local/groups"
    base = (ROOT / "conf/base/groups/model/digits.yml").read_text()
    for group, content in {
        "dataset": "use: {model: mine}\ndataset: {source: mnist5k, download_folder: x}",
        "model": f"use: {{diffusion: ho2020}}\n{base}",
        "augmentation": "use: {optimizer: mine}",
        "optimizer": "use: {training: mine}",
        "training": "use: {optimizer: sgd}",  # which takes the choice of this option back
    }.items():
        (groups / group).mkdir(parents=True)
        (groups / group / "mine.yml").write_text(content)
    found = load(project.folder / "conf", use__dataset="mine")
    assert (found["use"]["diffusion"], found["diffusion"]["schedule"]) == ("ho2020", "linear")
    with pytest.raises(UserError, match="choose each other in a circle"):
        load(project.folder / "conf", use__augmentation="mine")


def test_an_experiment_can_be_chosen_in_a_file(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("use: {experiment: cifar10}")
    assert load(project.folder / "conf")["dataset"]["source"] == "cifar10"
    assert load(project.folder / "conf", use__dataset="svhn")["dataset"]["source"] == "svhn"


def test_an_environment_changes_only_what_it_names(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("training: {seed: 5}")
    parameters = load(project.folder / "conf", training__batch_size=7)
    assert (parameters["training"]["seed"], parameters["training"]["batch_size"]) == (5, 7)
    assert parameters["training"]["label_dropout"] == 0.1


def test_options_in_local_are_found(project: Project) -> None:
    folder = project.folder / "conf/local/groups/model"
    folder.mkdir(parents=True)
    base = (project.folder / "conf/base/groups/model/digits.yml").read_text()
    (folder / "mine.yml").write_text(base.replace("width: 16", "width: 40"))
    assert load(project.folder / "conf", use__model="mine")["model"]["width"] == 40
    with pytest.raises(UserError, match="digits, ho2020, medium, mine, pictures, small"):
        load(project.folder / "conf", use__model="none")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            {"use__model": "digit"},
            r"Unknown option use.model=digit. Did you mean 'digits'\? Accepted: digits, ho2020, medium, pictures, sm",
        ),
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
def test_a_file_that_is_not_yaml_is_rejected_with_its_name(content: str, project: Project) -> None:
    path = project.folder / "conf/local/parameters.yml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"conf/local/parameters.yml.*Check its indentation"):
        load(project.folder / "conf")


@pytest.mark.parametrize("content", ["just words", "- a\n- b"])
def test_a_file_without_parameters_is_rejected_with_its_name(content: str, project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text(content)
    with pytest.raises(UserError, match=r"parameters.yml contains no parameters|Unknown parameter 'just words'"):
        load(project.folder / "conf")


@pytest.mark.parametrize("old", RENAMED)
def test_a_dataset_class_of_an_earlier_release_is_answered_with_its_name_today(old: str, project: Project) -> None:
    path = project.folder / "conf/local/catalog.yml"
    path.write_text(f"mine: {{type: partitions.PartitionedDataset, path: x, dataset: {{type: {old}}}}}")
    result = project.kedro_run(env="local")
    assert result.exit_code == 1
    assert result.output.endswith(
        f"Error: {path}, mine.dataset.type: {old} has another name now. Write {RENAMED[old]}.\n"
    )
    load_obj(RENAMED[old])


def test_an_unknown_parameter_of_a_file_is_answered_with_the_nearest(project: Project) -> None:
    (project.folder / "conf/local/parameters.yml").write_text("training: {batchsize: 3}")
    result = project.kedro_run(env="local")
    assert result.exit_code == 1
    assert "Error: Unknown parameter 'training.batchsize'. Did you mean 'batch_size'" in result.output
    assert "Traceback" not in result.output


def test_groups_are_found_in_an_archive_given_as_conf_source(project: Project) -> None:
    (project.folder / "conf/local/.gitkeep").touch()
    with tarfile.open("conf.tar.gz", "w:gz") as archive:
        archive.add("conf")
    loader = GroupConfigLoader("conf.tar.gz", **CONFIG_LOADER_ARGS)
    assert loader["parameters"] == load(project.folder / "conf")
    assert "small" in loader.options()["model"]
