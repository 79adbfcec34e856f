"""From a folder of images to samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_kedro.provenance import flatten
from tests.conftest import Project
from tests.ingestion import corpus
from tests.ingestion.test_image_files import folder_of, members
from tests.integration.test_whole_job import ok

FILES = {
    f"{name}/{number}.{suffix}": make()
    for name, suffix, make in (
        ("circles", "png", corpus.picture),
        ("squares", "jpg", lambda: corpus.picture("JPEG")),
    )
    for number in range(30)
}


def run(project: Project, path: Path, *words: str, source: str = "folder", **more: object) -> str:
    given = {"dataset.source": source, "dataset.path": path, "images.size": 16} | more
    chosen = ",".join(f"{name}={value}" for name, value in given.items())
    return ok(project.kedro_run(*words, "--params", chosen)).output


def report(project: Project) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((project.data / "08_reporting/ingestion_report.json").read_text())
    return {name: found[name] for name in ("training", "holdout")}


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_samples_are_generated_from_a_folder_and_an_archive(kind: str, project: Project, tmp_path: Path) -> None:
    broken = {"circles/broken.png": b"not a picture", "squares/empty.jpg": b""}
    top = tmp_path / "pictures"
    path = folder_of(top, FILES | broken) if kind == "folder" else members(tmp_path / "pictures.zip", FILES | broken)
    pipelines = ("--pipelines", "data_ingestion,model_training,sampling")
    run(project, path, *pipelines, source=kind)
    parts = report(project)
    assert sum(part["images"] for part in parts.values()) == 60  # type: ignore[misc]
    rejected = [reason for part in parts.values() for reason in part["rejected"]]  # type: ignore[attr-defined]
    assert sorted(rejected) == ["it is no image that can be read", "the file is empty"]
    listed = [tuple(line) for part in parts.values() for line in part["rejected_files"]]  # type: ignore[attr-defined]
    assert sorted(listed) == [
        ("circles/broken.png", "it is no image that can be read"),
        ("squares/empty.jpg", "the file is empty"),
    ]
    for part in parts.values():
        assert (part["height"], part["width"], part["channels"]) == (16, 16, 3)
        assert set(part["images_per_class"]) <= {"circles", "squares"}  # type: ignore[call-overload]
    config = json.loads((project.data / "06_models/model/config.json").read_text())
    assert config["class_names"] == ["circles", "squares"]
    assert (project.data / "07_model_output/samples.png").is_file()


def test_unchanged_images_are_not_decoded_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = folder_of(tmp_path / "pictures", FILES)
    run(project, top, "--pipelines", "data_ingestion")
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.ingestion.image_files.decode", lambda *_: pytest.fail("decoded again"))
        run(project, top, "--pipelines", "data_ingestion")
    (top / "circles/0.png").write_bytes(corpus.picture(mode="L"))
    run(project, top, "--pipelines", "data_ingestion", **{"images.channels": 1})
    assert {part["channels"] for part in report(project).values()} == {1}


def test_a_plain_run_uses_the_ingested_images_and_the_chosen_parameters(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "ddpm_kedro")
    run(project, folder_of(tmp_path / "pictures", FILES), "--pipelines", "data_ingestion", **{"images.fit": "pad"})
    assert "Chosen for these images: use.augmentation flips, model.width 32, " in caplog.text
    assert "2 classes, training images: circles 2" in caplog.text
    assert "Contact sheet: data/smoke/08_reporting/contact_sheet.png" in caplog.text
    plain = project.parameters()
    assert plain["use"] | {"dataset": "pictures", "model": "chosen", "augmentation": "flips"} == plain["use"]
    assert plain["dataset"]["path"] == str(tmp_path / "pictures")
    assert (plain["images"]["size"], plain["images"]["fit"]) == (16, "pad")
    assert plain["model"]["channel_multipliers"] == [2, 3]
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr("ddpm_kedro.ingestion.image_files.decode", lambda *_: pytest.fail("decoded again"))
        ok(project.kedro_run("--pipelines", "data_ingestion,model_training,sampling"))
    assert f"{tmp_path}/pictures: 60 images of 2 classes." in caplog.text
    config = json.loads((project.data / "06_models/model/config.json").read_text())
    assert config["class_names"] == ["circles", "squares"]
    assert config["image_shape"] == [3, 16, 16]


STRONGER: dict[str, dict[str, Any]] = {
    "use.dataset=mnist5k": {"use.dataset": "mnist5k", "dataset.path": None, "use.model": "digits"},
    "use.experiment=course_small": {"dataset.path": None, "dataset.source": "cifar10"},
    "use.model=small": {"use.dataset": "pictures", "model.channel_multipliers": [1, 2, 2, 2]},
    "model.blocks_per_level=2": {"use.model": "chosen", "model.blocks_per_level": 2, "images.size": 16},
    "use.augmentation=none": {"use.dataset": "pictures", "augmentation.horizontal_flip": False},
    "images.channels=1": {"use.dataset": "pictures", "images.channels": 1},
}


def test_given_parameters_override_chosen_ones(project: Project, tmp_path: Path) -> None:
    run(project, folder_of(tmp_path / "pictures", FILES), "--pipelines", "data_ingestion")
    for changes, expected in STRONGER.items():
        found = dict(flatten(project.parameters(changes)))
        assert {name: found[name] for name in expected} == expected, changes


def test_a_second_ingestion_may_leave_out_the_classes(project: Project, tmp_path: Path) -> None:
    top = folder_of(tmp_path / "pictures", FILES)
    run(project, top, "--pipelines", "data_ingestion")
    run(project, top, "--pipelines", "data_ingestion", **{"dataset.classes": "false"})
    assert {tuple(part["images_per_class"]) for part in report(project).values()} == {()}  # type: ignore[call-overload]


def test_another_dataset_replaces_the_images(project: Project, tmp_path: Path) -> None:
    run(project, folder_of(tmp_path / "pictures", FILES), "--pipelines", "data_ingestion")
    ok(project.kedro_run("--pipelines", "data_ingestion", "--params", "use.dataset=mnist5k"))
    assert project.parameters()["use"]["dataset"] == "mnist5k"


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        ({}, {}, "There is no image in dataset.path"),
        ({"a/1.png": b"x", "a/2.png": b"x"}, {"dataset.classes": "true"}, "dataset.classes is true, but"),
        ({f"{number}.png": b"x" for number in range(60)}, {}, "None of the 60 images probed can be read"),
        (FILES | {f"x/{n}.png": b"x" for n in range(20)}, {}, "more than images.max_rejected_fraction = 0.1 allows"),
    ],
)
def test_unusable_images_are_reported_without_a_traceback(
    files: dict[str, bytes], more: dict[str, str], message: str, project: Project, tmp_path: Path
) -> None:
    top = folder_of(tmp_path / "pictures", files)
    top.mkdir(exist_ok=True)
    given = {"dataset.source": "folder", "dataset.path": top} | more
    chosen = ",".join(f"{name}={value}" for name, value in given.items())
    result = project.kedro_run("--pipelines", "data_ingestion", "--params", chosen)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_folder_without_a_path_is_refused(project: Project) -> None:
    result = project.kedro_run("--pipelines", "data_ingestion", "--params", "dataset.source=folder")
    assert result.exit_code == 1
    assert "dataset.source=folder needs dataset.path" in result.output


@pytest.mark.slow
def test_images_without_classes_are_trained_sampled_and_reported(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(project, folder_of(tmp_path / "pictures", {f"{number}.png": corpus.picture() for number in range(60)}))
    assert "These images have no classes: SimCLR fits the feature extractor, without labels." in caplog.text
    metrics = json.loads((project.data / "08_reporting/metrics.json").read_text())
    assert metrics["figures"][0]["name"] == "KID(simclr)"
    assert metrics["verdict"].startswith("cannot be judged: ")
    assert metrics["verdict"] in (project.data / "08_reporting/report.html").read_text()


@pytest.mark.slow
def test_odd_class_names_work_in_every_pipeline(project: Project, tmp_path: Path) -> None:
    odd = ["null", "01", "<b>bold<", "猫", "c" * 250, "two\nlines", "[b]", "a-b", "a b"]
    files = {f"{name}/{number}.png": corpus.picture() for name in odd for number in range(8)}
    run(project, folder_of(tmp_path / "pictures", files), "--pipelines", "data_ingestion")
    ok(project.kedro_run())
    for label in ("null", "01", "猫", "two\\nlines", "[b]"):
        ok(project.kedro_run("--pipelines", "sampling", "--params", f"sampling.label={label}"))
        with np.load(project.data / "07_model_output/samples.npz") as samples:
            assert {str(samples["class_names"][index]) for index in samples["arr_1"]} == {label}
