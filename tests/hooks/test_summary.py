"""The summary after a run."""

import logging
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kedro.io import DataCatalog, MemoryDataset
from rich.console import Console

from ddpm_kedro.hooks import summary
from ddpm_kedro.metrics.scores import Score
from ddpm_kedro.metrics.table import Metrics
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import MADE_BY, Project, make_store

COLUMNS = 80 - len("12:34:56Z ")
METRICS = Metrics(
    scores=[
        Score("KID(classifier)", 0.0123456, 100, "lower", 0.0123456, -0.0004, 50, spread=0.002),
        Score("FD(classifier)", None, 100, "lower", note="needs at least 129 samples: sampling.num_images=129"),
        Score("accuracy of classes", 0.96, 100, "higher", 0.95, 0.97, 50),
    ],
    copying={"verdict": "no sign of copying"},
    samples={},
    extractor="classifier",
    reference_images=400,
    made_by=MADE_BY,
    verdict="far from real images: KID 0.012 (real images -0.0004)",
    warnings=("The classifier names only 54 % of real images rightly.",),
)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


class Stored(MemoryDataset):
    """Data in memory that seems to be in a file."""

    def _describe(self) -> dict[str, Any]:
        return {"filepath": f"{Path.cwd()}/data/a_file"}


def summarise(**outputs: Any) -> None:
    """Call the hook after a run with these outputs on 40 images."""
    datasets = {name: Stored(data, copy_mode="assign") for name, data in outputs.items()}
    catalog = DataCatalog({"training_images": MemoryDataset(make_store(40)), **datasets})
    summary.Summary().after_pipeline_run(SimpleNamespace(all_outputs=lambda: set(datasets)), catalog)


def test_a_whole_run_logs_15_lines_of_at_most_80_columns(finished: Project) -> None:
    log = (finished.data / "08_reporting/run.log").read_text()
    shown = re.findall(r"^\S+ INFO    ddpm_kedro\.\S+: (.*)$", log, re.MULTILINE)
    shown = [line for line in shown if "too few: needs" not in line]  # a run with 100 samples has no such line
    assert 10 <= len(shown) <= 16, shown
    assert [
        line for line in shown if len(line) > COLUMNS and not re.search("/| of each: ", line)
    ] == []  # paths and names
    text = "\n".join(shown)
    for part in (
        r"^Run [0-9a-f]{12} trains on cpu, \w+: 64 images, 0.014 passes$",
        r"^64 of 64 images, loss \d\.\d{4} \(validation \d\.\d{4}\), 0:00:00 left$",
        r"^Generating 20 images on cpu: 4 steps of dpm_solver\+\+, guidance 1.75$",
        r"^Training: 0.014 passes over 4,500 images; too few rows to judge.$",
        r"^Samples: data/smoke/07_model_output/samples.png$",
        r"^Report: data/smoke/08_reporting/report.html \(details: run.log\)$",
        r"^Model: data/smoke/06_models/model$",
    ):
        assert re.search(part, text, re.MULTILINE), (part, text)


def test_a_verdict_on_the_training_comes_before_the_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=summary.__name__)
    history = [{"images_seen": 8.0 * n, "validation_loss": 1 / n, "images_per_second": 4.0} for n in range(1, 11)]
    parameters = {"training": {"num_images": 80}, "optimizer": {"lr_schedule": "constant"}}
    model = SimpleNamespace(made_by=Provenance(parameters, {}))
    summarise(training_history=history, model=model, metrics=METRICS)
    lines = messages(caplog)
    assert lines[0] == "Training: 2 passes over 40 images; the loss was still falling."
    assert " ".join(lines[1:3]) == "To train longer, add --params training.num_images=160 (about 0:00:20 more)."
    assert lines[3:] == [
        "Samples: far from real images",
        "classifier      KID  accuracy",
        "samples      0.0123      0.96",
        "holdout     -0.0004      0.97",
        "FD: needs at least 129 samples: sampling.num_images=129",
        "Model: data/a_file",
    ]
    assert messages(caplog, logging.WARNING) == list(METRICS.warnings)
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize(
    ("verdict", "level"), [("no sign of copying", logging.DEBUG), ("copies training images", logging.WARNING)]
)
def test_copies_are_a_warning(verdict: str, level: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger=summary.__name__)
    summarise(metrics=replace(METRICS, copying={"verdict": verdict}, warnings=()))
    assert f"Copies, by each sample's nearest training image: {verdict}" in messages(caplog, level)


def test_metrics_without_scores_have_no_table(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=summary.__name__)
    verdict = "cannot be judged: at least 20 images are needed"
    summarise(metrics=replace(METRICS, scores=[], verdict=verdict, warnings=()))
    assert messages(caplog) == [f"Samples: {verdict}"]


def test_a_terminal_shows_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, color_system="truecolor", width=80)
    monkeypatch.setattr("ddpm_kedro.hooks.summary.rich.get_console", lambda: console)
    images = np.zeros((20, 8, 8, 1), np.uint8)
    summarise(samples=Samples(images, None, (), MADE_BY))
    assert output.getvalue().count("▀") == 5 * 16 * 8


def test_a_run_of_one_pipeline_has_no_summary_of_others(
    project: Project, smoke_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project.adopt_images(smoke_data)
    assert project.kedro_run("--pipelines", "data_ingestion").exit_code == 0
    assert [record.message for record in caplog.records if record.name == summary.__name__] == [
        "Contact sheet: data/smoke/08_reporting/contact_sheet.png",
        "Ingestion report: data/smoke/08_reporting/ingestion_report.json",
    ]


def test_images_as_text_have_the_colours_of_their_pixels() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, 0, :] = (250, 0, 0)
    images[1, :, :, 1] = 200
    text = summary.images_as_text(images)
    assert text.plain == ("▀" * 32 + "\n") * 8
    first, last = text.spans[0].style, text.spans[31].style
    assert (first.color.triplet, first.bgcolor.triplet) == ((250, 0, 0), (0, 0, 0))
    assert last.color.triplet == (0, 200, 0)
