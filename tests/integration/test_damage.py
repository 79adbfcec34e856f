"""Damage each artefact of a finished run, and run each pipeline that reads it: no traceback and no wrong result."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm_kedro.up_to_date import FILE
from tests.conftest import Project
from tests.integration.test_whole_job import failed, ok

TIMED = ("sampling_report.json", "metrics.json", "report.html", "run.log", "run.log.1")  # they contain times
READERS = {
    "05_model_input/training_images/store.json": ("model_training", "evaluation"),
    "05_model_input/training_images/00000.npy": ("model_training",),
    "05_model_input/training_images/labels.npy": ("model_training",),
    "05_model_input/holdout_images/hashes.npy": ("image_to_image",),
    "06_models/checkpoint.pt": ("model_training",),
    "06_models/best_checkpoint.pt": ("model_training",),
    "06_models/model/config.json": ("sampling", "interpolation", "reporting"),
    "06_models/model/model.safetensors": ("sampling", "inpainting", "evaluation"),
    "07_model_output/samples.npz": ("evaluation",),
    "07_model_output/sampling_report.json": ("evaluation",),
    "07_model_output/samples.png": ("reporting",),
    "08_reporting/metrics.json": ("reporting",),
    "08_reporting/ingestion_report.json": ("reporting",),
    "08_reporting/loss_by_timestep.json": ("reporting",),
    "08_reporting/nearest_neighbours.png": ("reporting",),
    "08_reporting/contact_sheet.png": ("reporting",),
    "08_reporting/training_history.csv": ("reporting",),
}
MADE_AGAIN = (
    "05_model_input/training_images/store.json",
    "05_model_input/training_images/00000.npy",
    "05_model_input/training_images/labels.npy",
    "05_model_input/holdout_images/hashes.npy",
    "06_models/feature_extractor/weights.pt",
    "06_models/feature_extractor/config.json",
)


def damages(content: bytes) -> Iterator[bytes]:
    """Cut the content at three places, and change one byte of it."""
    middle = len(content) // 2
    yield from (b"", content[:middle], content[:-2])
    yield content[:middle] + bytes([content[middle] ^ 0x11]) + content[middle + 1 :]


def untimed(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((*TIMED, "-checked.json", ".lock", FILE))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_artefact_is_named_by_what_reads_it(name: str, finished: Project) -> None:
    path = finished.data / name
    content = path.read_bytes()
    for damaged in damages(content):
        if name.endswith((".csv", ".png")) and damaged == content[:-2]:
            continue  # the end of a number cannot be noticed, nor what comes after all pixels
        for pipeline in READERS[name]:
            path.write_bytes(damaged)
            message = failed(finished.kedro_run("--pipelines", pipeline), "is damaged")
            assert name.rsplit("/", 1)[0] in message
            assert any(words in message for words in ("again", "repairs it", "Move it away"))


@pytest.mark.slow
def test_undamaged_artefacts_are_read_by_every_pipeline(finished: Project) -> None:
    for pipeline in sorted({pipeline for readers in READERS.values() for pipeline in readers}):
        ok(finished.kedro_run("--pipelines", pipeline))


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_AGAIN)
def test_a_damaged_input_is_made_again_by_the_pipeline_that_made_it_and_by_the_plain_run(
    name: str, finished: Project, caplog: pytest.LogCaptureFixture
) -> None:
    expected, path = untimed(finished.data), finished.data / name
    maker = "data_ingestion" if name.startswith("05_model_input") else "evaluation"
    *first, last = damages(path.read_bytes())
    for damaged, words in [*((each, ("--pipelines", maker)) for each in first), (last, ())]:
        path.write_bytes(damaged)
        caplog.clear()
        ok(finished.kedro_run(*words))
        assert "It is made again." in caplog.text
        assert untimed(finished.data) == expected


@pytest.mark.slow
def test_a_plain_run_replaces_its_own_damaged_outputs(finished: Project) -> None:
    """Damage samples, documents and the model, and put a file in place of a folder."""
    expected = untimed(finished.data)
    for name in ("07_model_output/samples.npz", "08_reporting/metrics.json", "08_reporting/training_history.csv"):
        (finished.data / name).write_bytes(b"")
    (finished.data / "06_models/model/config.json").write_text("{")
    shutil.rmtree(finished.data / "06_models/feature_extractor")
    (finished.data / "06_models/feature_extractor").write_text("a file where a folder belongs")
    ok(finished.kedro_run())
    assert untimed(finished.data) == expected
