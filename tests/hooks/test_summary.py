"""The summary after a run."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from ddpm_kedro.hooks import summary
from tests.conftest import Project


def test_without_a_terminal_every_metric_is_a_line(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    assert project.kedro_run().exit_code == 0
    said = [record.message for record in caplog.records if record.name == summary.__name__]
    assert sum("holdout" in line for line in said) == 6
    assert "Copies: " in said[6]
    assert "Samples: data/smoke/07_model_output/samples.png" in said
    assert "Report: data/smoke/08_reporting/report.html" in said
    assert "Model: data/smoke/06_models/model" in said
    caplog.clear()
    assert project.kedro_run("--pipelines", "data_ingestion").exit_code == 0
    assert not [record for record in caplog.records if record.name == summary.__name__]


def test_a_terminal_shows_a_table_and_samples(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, color_system="truecolor", width=100)
    monkeypatch.setattr("ddpm_kedro.hooks.summary.rich.get_console", lambda: console)
    assert project.kedro_run().exit_code == 0
    assert "KID(classifier)" in output.getvalue()
    assert "nearest training image" in output.getvalue()
    assert output.getvalue().count("▀") == 10 * 16 * 8


def test_images_as_text_have_the_colours_of_their_pixels() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, 0, :] = (250, 0, 0)
    images[1, :, :, 1] = 200
    text = summary.images_as_text(images)
    assert text.plain == ("▀" * 32 + "\n") * 8
    first, last = text.spans[0].style, text.spans[31].style
    assert (first.color.triplet, first.bgcolor.triplet) == ((250, 0, 0), (0, 0, 0))
    assert last.color.triplet == (0, 200, 0)
