"""Which nodes run again: those whose parameters, inputs, code or outputs have changed, and no others."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import AbstractDataset, DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner, ThreadRunner

from ddpm_kedro.datasets.chosen_parameters import EarlierManifestDataset
from ddpm_kedro.datasets.disk_state import disk_state
from ddpm_kedro.datasets.document import DocumentDataset
from ddpm_kedro.hooks.node_records import NodeRecords
from ddpm_kedro.pipeline_registry import MAIN_JOB
from ddpm_kedro.up_to_date import (
    EARLIER_OUTPUTS,
    FILE,
    NOT_REPRODUCIBLE,
    ORDER_ONLY,
    READS_A_SOURCE,
    find_nodes_to_run,
    read_records,
)
from tests.conftest import EVALUATION, IMAGES, SAMPLING, TRAINING, changed

STORED = (
    "raw",
    "images",
    "preview",
    "history",
    "checkpoint",
    "model",
    "samples",
    "timing",
    "grid",
    "metrics",
    "report",
)
AFTER_TRAINING = {"export_model", "sample", "render", "evaluate", "report"}
TRAINED = {"augment", "plan", "train_model"}
EVERYTHING = {"download_images", "prepare"} | TRAINED | AFTER_TRAINING


def of(pipeline: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as if it were one of the package's nodes."""
    function.__module__ = f"ddpm_kedro.pipelines.{pipeline}.nodes"
    return function


class Project:
    """A small pipeline like the project's: every output contains the number of its run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.run_number = folder, "three images", 0
        self.parameters = {"images": IMAGES, "training": TRAINING, "sampling": SAMPLING, "evaluation": EVALUATION}
        self.datasets: dict[str, AbstractDataset[Any, Any]] = {}
        self.fails: set[str] = set()
        self.stopped = False
        self.more: list[Node] = []

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def catalog(self) -> DataCatalog:
        datasets: dict[str, Any] = {name: DocumentDataset(filepath=str(self.path(name))) for name in STORED}
        datasets |= {"resume_checkpoint": EarlierManifestDataset(filepath=str(self.path("checkpoint")))}
        datasets |= {f"params:{name}": MemoryDataset(value) for name, value in self.parameters.items()}
        datasets |= {name: MemoryDataset(copy_mode="assign") for name in ("augmented", "plan")}
        return DataCatalog(datasets | {"stop_request": MemoryDataset(Event(), copy_mode="assign")} | self.datasets)

    def pipeline(self) -> Pipeline:
        def made(*outputs: str) -> Callable[..., Any]:
            def function(*_: Any) -> Any:
                if self.fails & {*outputs}:
                    raise RuntimeError(outputs)
                each = [{"name": name, "run": self.run_number} for name in outputs]
                return each if len(each) > 1 else each[0]

            return function

        def download(_: Any) -> dict[str, str]:
            return {"source": self.source}

        def train(*_: Any) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
            for step in range(2):
                yield {"run": self.run_number}, {"run": self.run_number, "step": step}
                if self.stopped:
                    raise SystemExit(143)

        training, sampling, evaluation, reporting = "model_training", "sampling", "evaluation", "reporting"
        planned = ["augmented", "resume_checkpoint", "params:training"]
        nodes = [
            (of("data_ingestion", download), "params:images", "raw", "download_images"),
            (of("data_ingestion", made("images")), ["raw", "params:images"], "images", "prepare"),
            (of(training, made("augmented", "preview")), ["images"], ["augmented", "preview"], "augment"),
            (of(training, made("plan")), planned, "plan", "plan"),
            (of(training, train), ["augmented", "plan", "stop_request"], ["history", "checkpoint"], "train_model"),
            (of(training, made("model")), ["checkpoint", "params:training"], "model", "export_model"),
            (of(sampling, made("samples", "timing")), ["model", "params:sampling"], ["samples", "timing"], "sample"),
            (of(sampling, made("grid")), "samples", "grid", "render"),
            (of(evaluation, made("metrics")), ["samples", "timing", "params:evaluation"], "metrics", "evaluate"),
            (of(reporting, made("report")), ["model", "metrics", "grid"], "report", "report"),
        ]
        return Pipeline(
            [Node(function, inputs, outputs, name=name) for function, inputs, outputs, name in nodes] + self.more
        )

    def stale(self, *pipelines: str, **options: Any) -> set[str]:
        """Return the nodes that a run would run."""
        return {*find_nodes_to_run(self.selected(*pipelines), self.catalog(), read_records(self.folder), **options)}

    def selected(self, *names: str) -> Pipeline:
        return self.pipeline().only_nodes(*names) if names else self.pipeline()

    def run(self, *names: str, runner: Any = SequentialRunner) -> set[str]:
        """Run what is stale, with the hook that records it, and return it."""
        self.run_number += 1
        stale, catalog = self.stale(*names), self.catalog()
        pipeline, hook, manager = self.pipeline().only_nodes(*stale), NodeRecords(), _create_hook_manager()
        hook.data_root = self.folder
        manager.register(hook)
        hook.before_pipeline_run(pipeline, catalog)
        runner().run(pipeline, catalog, manager)
        hook.after_pipeline_run(pipeline)
        return stale

    def set(self, group: str, **values: Any) -> None:
        self.parameters[group] = changed(self.parameters[group], **values)

    def run_of(self, name: str) -> int:
        """Return the number of the run that made an output."""
        return int(self.catalog().load(name)["run"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    assert made.run() == EVERYTHING
    return made


def test_a_finished_run_repeated_runs_no_node(project: Project) -> None:
    assert project.run() == set()
    assert project.run() == set()


@pytest.mark.parametrize(
    ("group", "values", "expected"),
    [
        ("sampling", {"seed": 7}, {"sample", "render", "evaluate", "report"}),
        ("sampling", {"batch_size": 3}, set()),
        ("evaluation", {"shown": 2}, {"evaluate", "report"}),
        ("training", {"num_images": 96}, {"augment", "plan", "train_model"} | AFTER_TRAINING),
        ("training", {"report_interval": 8, "device": "auto"}, set()),
        ("training", {"export": "best"}, {"augment", "plan", "train_model"} | AFTER_TRAINING),
        ("images", {"seed": 1}, EVERYTHING),
        ("images", {"max_rejected_fraction": 0.2}, EVERYTHING),
        ("images", {"workers": 2}, set()),
    ],
)
def test_changed_parameters_run_the_nodes_that_depend_on_them(
    group: str, values: dict[str, Any], expected: set[str], project: Project
) -> None:
    project.set(group, **values)
    assert project.run() == expected
    assert project.run() == set()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("samples", {"sample"}),
        ("grid", {"render"}),
        ("metrics", {"evaluate"}),
        ("report", {"report"}),
        ("preview", {"augment"}),
        ("images", {"prepare"}),
        ("model", {"export_model"}),
        ("history", TRAINED | AFTER_TRAINING),
        ("checkpoint", TRAINED | AFTER_TRAINING),
        ("raw", EVERYTHING),
    ],
)
def test_a_lost_output_is_made_again(output: str, expected: set[str], project: Project) -> None:
    """What depends on earlier checkpoints or on a source may differ when it is made again: later nodes run, too."""
    project.path(output).unlink()
    assert project.run() == expected
    assert project.path(output).exists()


@pytest.mark.parametrize("output", ["samples", "metrics"])
def test_a_damaged_output_is_made_again_once(output: str, project: Project) -> None:
    path = project.path(output)
    path.write_bytes(path.read_bytes().replace(b"run", b"rum"))
    assert len(project.run()) == 1
    assert project.run_of(output) == 2
    assert project.run() == set()


def test_files_that_were_copied_or_touched_are_up_to_date(project: Project, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.json"):
        os.utime(path, (1, 1))
    assert project.run() == set()
    shutil.copytree(tmp_path, copied := tmp_path / "copied", copy_function=shutil.copyfile)
    project.folder = copied
    assert project.run() == set()


def test_changed_code_repeats_sampling_evaluation_and_reports_but_no_training(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.up_to_date.source_fingerprint", lambda _: "another version")
    assert project.run() == {"sample", "render", "evaluate", "report"}
    assert project.run() == set()


def test_a_changed_source_is_noticed(project: Project) -> None:
    project.source = "four images"
    assert project.run() == EVERYTHING
    assert project.run() == set()


def test_a_training_that_must_not_resume_always_runs(project: Project) -> None:
    project.set("training", resume="never")
    for _ in range(2):
        assert project.run() == TRAINED | AFTER_TRAINING


def test_a_node_with_outputs_in_memory_runs_only_for_a_node_that_needs_them(project: Project) -> None:
    project.path("preview").unlink()
    assert project.stale() == {"augment"}
    project.path("history").unlink()
    assert {"augment", "plan", "train_model"} <= project.stale()


def test_the_outputs_of_a_node_that_failed_are_not_up_to_date(project: Project) -> None:
    project.set("evaluation", shown=2)
    project.fails = {"metrics"}
    with pytest.raises(RuntimeError):
        project.run()
    assert project.stale() == {"evaluate", "report"}
    project.set("sampling", seed=3)
    with pytest.raises(RuntimeError):
        project.run()
    assert project.stale() - {"render"} == {"evaluate", "report"}  # the samples were made before the failure


def test_a_stopped_training_is_not_up_to_date(project: Project) -> None:
    project.set("training", num_images=96)
    project.stopped = True
    with pytest.raises(SystemExit):
        project.run()
    assert {"train_model", "export_model"} <= project.stale()
    project.set("training", num_images=TRAINING.num_images)  # the earlier training, whose checkpoint is replaced
    assert {"train_model", "export_model"} <= project.stale()


def test_a_finished_training_is_recorded_before_the_run_ends(project: Project) -> None:
    project.set("training", num_images=96)
    project.fails = {"samples"}
    with pytest.raises(RuntimeError):
        project.run()
    assert project.stale() == {"sample", "render", "evaluate", "report"}


def test_each_pipeline_alone_knows_what_another_run_made(project: Project) -> None:
    assert project.run("evaluate", "report") == set()
    project.set("sampling", seed=7)
    assert project.run("sample", "render") == {"sample", "render"}
    assert project.run("evaluate") == {"evaluate"}
    assert project.run() == {"report"}
    assert project.run() == set()


def test_an_input_that_was_replaced_by_hand_is_noticed(project: Project) -> None:
    project.path("samples").write_text('{"run": 0}')
    assert project.run("render") == {"render"}
    assert project.run("render") == set()


def test_an_input_made_with_other_parameters_than_those_of_the_run_is_loaded(project: Project) -> None:
    assert project.stale("sample", "render", other_inputs={"model"}) == {"sample", "render"}
    assert project.stale("evaluate", other_inputs={"model"}) == set()


def test_an_input_that_only_gives_the_order_makes_no_node_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm_kedro.up_to_date.ORDER_ONLY", {("fit", "timing")})
    project.datasets = {"extractor": DocumentDataset(filepath=str(project.path("extractor")))}
    fit = of("evaluation", lambda images, timing: {"run": project.run_number})
    project.more = [Node(fit, ["images", "timing"], "extractor", name="fit")]
    assert project.run() == {"fit"}
    project.set("sampling", seed=7)
    assert "fit" not in project.run()
    project.set("images", seed=7)
    assert "fit" in project.run()


def test_a_node_of_another_package_is_never_up_to_date(project: Project) -> None:
    project.more = [Node(lambda metrics: metrics, "metrics", "mine", name="mine")]
    assert project.run() == {"mine"}
    assert project.run() == {"mine"}


def test_an_unknown_kind_of_dataset_is_never_up_to_date(project: Project) -> None:
    class Unknown(AbstractDataset[Any, Any]):
        def load(self) -> Any:
            return {"run": 1}

        def save(self, data: Any) -> None:
            pass

        def _describe(self) -> dict[str, Any]:
            return {}

    project.datasets = {"grid": Unknown()}
    project.run()
    for _ in range(2):
        assert project.run() == {"render", "report"}


def test_remote_files_are_compared(project: Project) -> None:
    files = fsspec.filesystem("memory")
    project.datasets = {"samples": DocumentDataset(filepath="memory://skipping/samples.json")}
    assert project.run() == {"sample"}
    assert project.run() == set()
    files.pipe_file("/skipping/samples.json", b"{}")
    assert project.run() == {"sample"}
    files.rm("/skipping/samples.json")
    assert project.run() == {"sample"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "of another version"}', '{"format": 1, "nodes": 2}'])
def test_without_readable_records_everything_runs(content: str, project: Project) -> None:
    (project.folder / FILE).write_text(content)
    assert project.run() == EVERYTHING


def test_the_tables_name_nodes_and_datasets_of_the_project() -> None:
    pipelines = [import_module(f"ddpm_kedro.pipelines.{name}").create_pipeline() for name in MAIN_JOB]
    nodes = {node.short_name for pipeline in pipelines for node in pipeline.nodes}
    datasets = {name for pipeline in pipelines for name in pipeline.datasets()}
    assert NOT_REPRODUCIBLE | READS_A_SOURCE | {node for node, _ in ORDER_ONLY} <= nodes
    assert EARLIER_OUTPUTS | {name for _, name in ORDER_ONLY} <= datasets


def test_threads_record_every_node(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project.run(runner=ThreadRunner) == EVERYTHING
    assert project.run(runner=ThreadRunner) == set()


def test_a_folder_is_compared_by_names_and_contents(tmp_path: Path) -> None:
    dataset = DocumentDataset(filepath=str(tmp_path / "folder"))
    (tmp_path / "folder/deep").mkdir(parents=True)
    first = tmp_path / "folder/deep/a"
    first.write_text("1")
    before = disk_state(dataset)
    assert before is not None
    first.rename(tmp_path / "folder/deep/b")
    after = disk_state(dataset)
    assert after is not None
    assert before.stamp != after.stamp
    assert before.checksum != after.checksum
    (tmp_path / "folder/deep/b").rename(first)
    assert disk_state(dataset) == before
    os.utime(first, (1, 1))
    touched = disk_state(dataset)
    assert touched is not None
    assert touched.checksum == before.checksum
