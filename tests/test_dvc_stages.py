"""The stages in dvc.yaml depend on what their pipelines read and on the code that shapes what they write."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from kedro.pipeline import Pipeline

from ddpm_kedro.pipeline_registry import MAIN_JOB
from tests.conftest import ROOT

PACKAGE = ROOT / "src/ddpm_kedro"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CATALOG = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text())
PARAMETERS, CATALOG_FILE, RESTARTED = "data/parameters.yaml", "conf/base/catalog.yml", "data/restarted.txt"
RESTART, TRAIN = "restart", "train"
NOT_COMPARED = {"sampling_report", "training_previews"}
"""The report has the time that sampling took, which is never the same; previews are of all runs, and may be none."""

WITHOUT_EFFECT = {"errors", "files", "kedro_adapter", "nothing", "parameters", "progress", "provenance"}
"""They change no output: messages, checks, names of runs, and parameters, whose values are in data/parameters.yaml."""
FIGURES = {"reporting"}
"""The look of a figure is no reason to ingest images or to train again."""
INGESTION = {"ingestion"}
"""Other stages depend on the images that ingestion wrote."""
LEFT_OUT = {"data": WITHOUT_EFFECT | FIGURES, TRAIN: WITHOUT_EFFECT | FIGURES | INGESTION}
PIPELINE_OF = {
    name: found[1]
    for name, stage in STAGES.items()
    if (found := re.fullmatch(r"kedro run --pipelines (\w+)", stage["cmd"]))
}


def pipeline_of(stage: str) -> Pipeline:
    return import_module(f"ddpm_kedro.pipelines.{PIPELINE_OF[stage]}").create_pipeline()


def path_of(dataset: str) -> str | None:
    """Return the path of a dataset; None if it is in memory, or at a path that is a parameter."""
    entry = CATALOG.get(dataset, {})
    found = re.fullmatch(r"\$\{globals:.*\}/(.+)", entry.get("filepath") or entry.get("path") or "")
    return f"data/{found[1]}" if found else None


def paths_of(datasets: set[str]) -> set[str]:
    return {path for dataset in datasets if (path := path_of(dataset))}


def classes_in(entry: Any) -> Iterator[str]:
    """Yield the modules of the project's dataset classes that an entry of the catalog names."""
    for value in entry.values():
        if isinstance(value, str) and value.startswith("ddpm_kedro."):
            yield value.rpartition(".")[0]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ddpm_kedro")


def package_of(module: str) -> str:
    return f"{module}.".split(".")[1]


def imported(roots: set[str], left_out: set[str]) -> set[str]:
    """Return all modules that the roots import, directly or not, except modules of the packages left out."""
    found, queue = set(), list(roots)
    while queue:
        module = queue.pop()
        if module not in found and package_of(module) not in left_out:
            found.add(module)
            queue += graph().find_modules_directly_imported_by(module)
    return found


def files_of(folder: Path) -> set[Path]:
    """Return the files of a package, without modules that are nothing but a docstring."""
    files = {file for file in folder.rglob("*.*") if file.suffix != ".pyc"}
    return {file for file in files if file.suffix != ".py" or len(ast.parse(file.read_text()).body) > 1}


def as_dependencies(modules: set[str]) -> set[str]:
    """Return the files of modules and the templates that they name; a folder in place of all its files."""
    files = set[Path]()
    for module in modules:
        path = PACKAGE.parent / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        named = {other for other in file.parent.glob("*.*") if other.suffix != ".py" and other.name in file.read_text()}
        files |= ({file} & files_of(file.parent)) | named
    folders = {file.parent for file in files if file.parent != PACKAGE and files_of(file.parent) <= files}
    loose = {file for file in files if file.parent not in folders}
    return {str(path.relative_to(ROOT)) for path in folders | loose}


def code_of(stage: str) -> set[str]:
    pipeline = pipeline_of(stage)
    package = f"ddpm_kedro.pipelines.{PIPELINE_OF[stage]}"
    roots = {package, *graph().find_descendants(package)}
    for dataset in pipeline.inputs() | pipeline.all_outputs():
        roots |= set(classes_in(CATALOG.get(dataset, {})))
    return as_dependencies(imported(roots, LEFT_OUT.get(stage, WITHOUT_EFFECT | INGESTION)))


def expected_dependencies(stage: str) -> list[str]:
    if stage == RESTART:  # what shapes weights: neither how files are read and written, nor how figures look
        package = f"ddpm_kedro.pipelines.{PIPELINE_OF[TRAIN]}"
        roots = {package, *graph().find_descendants(package)}
        return sorted(as_dependencies(imported(roots, WITHOUT_EFFECT | FIGURES | {"datasets"})))
    pipeline = pipeline_of(stage)
    read = paths_of(pipeline.inputs() - NOT_COMPARED) - paths_of(pipeline.all_outputs())
    restarted = {RESTARTED} if stage == TRAIN else set()
    return sorted({CATALOG_FILE, *read, *restarted, *code_of(stage)})


@pytest.mark.parametrize("stage", [*PIPELINE_OF, RESTART])
def test_a_stage_depends_on_its_inputs_and_on_the_code_that_its_nodes_import(stage: str) -> None:
    expected = expected_dependencies(stage)
    found = STAGES[stage]["deps"]
    lines = "\n".join(f"      - {dependency}" for dependency in expected)
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    assert found == expected, (
        f"In dvc.yaml, stage {stage}: missing {missing}, not needed {surplus}. It should be:\n    deps:\n{lines}\n"
    )


@pytest.mark.parametrize("stage", PIPELINE_OF)
def test_a_stage_depends_on_the_parameters_of_its_nodes(stage: str) -> None:
    groups = {name.removeprefix("params:") for name in pipeline_of(stage).inputs() if name.startswith("params:")}
    assert STAGES[stage]["params"] == [{PARAMETERS: sorted(groups)}]


@pytest.mark.parametrize("stage", PIPELINE_OF)
def test_a_stage_writes_its_pipelines_outputs(stage: str) -> None:
    outs = {out if isinstance(out, str) else next(iter(out)) for out in STAGES[stage]["outs"]}
    assert outs <= paths_of(pipeline_of(stage).all_outputs())


def test_the_stages_are_the_main_job() -> None:
    assert tuple(PIPELINE_OF.values()) == MAIN_JOB


def test_every_part_of_the_package_belongs_to_a_stage_or_shapes_no_output() -> None:
    commands = {
        "cli",
        "run_log.py",
        "runs.py",
        "session.py",
        "settings.py",
        "up_to_date.py",
        "source_code.py",
        "sweep.py",
        "terminal.py",
        "__main__.py",
    }
    surroundings = {"data_lock.py", "hooks", "pipeline_registry.py", "plain_text.py", "__init__.py"}
    surroundings |= {"source_code.py", "up_to_date.py"}
    without_effect = WITHOUT_EFFECT | {f"{name}.py" for name in WITHOUT_EFFECT}
    named = {Path(dep) for stage in STAGES.values() for dep in stage["deps"] if dep.startswith("src/")}
    assert all((ROOT / path).exists() for path in named)
    covered = {(ROOT / path).relative_to(PACKAGE).parts[0] for path in named}
    parts = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}  # not the cache of a removed module
    assert parts - commands - surroundings - without_effect == covered
    assert set(MAIN_JOB) <= {path.name for path in named}


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("pipelines/data_ingestion/nodes.py", {"data"}),
        ("pipelines/model_training/nodes.py", {"restart", "train"}),
        ("pipelines/sampling/nodes.py", {"sample"}),
        ("cli/runs.py", set()),
        ("reporting/fonts.py", {"sample", "evaluate", "report"}),
        ("reporting/page.py", {"report"}),
        ("metrics/neighbours.py", {"evaluate"}),
        ("metrics/scores.py", {"evaluate", "report"}),
        ("training/trainer.py", {"restart", "train"}),
        ("models/unet.py", {"restart", "train", "sample", "evaluate", "report"}),
        ("hooks/tracking.py", set()),
    ],
)
def test_a_change_makes_stale_what_it_shapes(changed: str, stale: set[str]) -> None:
    file = f"src/ddpm_kedro/{changed}"
    assert (ROOT / file).is_file()
    found = {name for name, stage in STAGES.items() if any(Path(file).is_relative_to(dep) for dep in stage["deps"])}
    assert found == stale
