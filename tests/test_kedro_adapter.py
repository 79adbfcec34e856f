"""The private names of Kedro that ``kedro_adapter.py`` uses, and the releases with which they were checked."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.partitions import PartitionedDataset

from ddpm_kedro import kedro_adapter
from tests.conftest import ROOT, Project

CHECKED = {"kedro": "1.7", "kedro-datasets": "9.6"}


@pytest.mark.parametrize("package", CHECKED)
def test_the_installed_release_is_the_one_that_was_checked(package: str) -> None:
    found = version(package)
    assert found.startswith(f"{CHECKED[package]}."), (
        f"{package} {found} is installed, but src/ddpm_kedro/kedro_adapter.py was checked with {CHECKED[package]}. "
        "Compare its private names with the new release, run all tests, and change CHECKED."
    )


def test_every_private_name_is_still_there(project: Project) -> None:
    json = JSONDataset(filepath="x.json")
    partitions = PartitionedDataset(path="x", dataset="json.JSONDataset")
    session = KedroSession.create(project.folder)
    expected = [
        (OmegaConfigLoader, "_read_raw_config _read_dir_configs _get_conf_env_path _check_duplicates _soft_merge"),
        (OmegaConfigLoader(str(project.folder / "conf")), "_fs"),
        (session, "_get_config_loader"),
        (SequentialRunner(), "_is_async"),
        (json, "_filepath _protocol _fs _version _describe"),
        (partitions, "_path _protocol _overwrite _list_partitions _filesystem _dataset_config _join_protocol"),
    ]
    missing = [
        f"{owner} has no {name}" for owner, names in expected for name in names.split() if not hasattr(owner, name)
    ]
    assert not missing, f"Kedro {version('kedro')} changed names that kedro_adapter.py uses: {'; '.join(missing)}."


def test_the_path_of_a_dataset_is_found_in_kedros_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        JSONDataset(filepath=str(tmp_path / "missing.json")).load()
    assert kedro_adapter.path_in_error(error.value) == str(tmp_path / "missing.json")
    assert kedro_adapter.path_in_error(DatasetError("another")) is None


def test_no_other_module_uses_a_private_name_of_kedro() -> None:
    names = "filepath|fs|protocol|version|overwrite|describe|is_async|get_config_loader|project_path|list_partitions"
    private = re.compile(rf"from kedro[\w.]* import [^\n]*\b_|kedro_datasets\._|(?<!self)(?<!super\(\))\._({names})\b")
    for path in sorted((ROOT / "src").rglob("*.py")):
        if path.name != "kedro_adapter.py":
            found = private.search(path.read_text())
            assert found is None, f"{path} uses a private name of Kedro ({found[0]}): use ddpm_kedro.kedro_adapter."
