"""Progress on a terminal and in log files."""

import logging
import re
from io import StringIO

import pytest
from rich.console import Console

from ddpm_kedro import progress
from ddpm_kedro.progress import RowLog, passes, training_progress

logger = logging.getLogger("ddpm_kedro.a_training")


def rows(count: int, start: int = 0) -> list[dict[str, float]]:
    values = {"loss": 0.25, "validation_loss": 0.5, "images_per_second": 10.0}
    return [{"images_seen": 100.0 * (row + 1), **values} for row in range(start, count)]


def logged(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """A terminal of 80 columns."""
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    monkeypatch.setattr("ddpm_kedro.progress.rich.get_console", lambda: console)
    return output


def test_the_first_the_middle_and_the_last_row_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="ddpm_kedro")
    log = RowLog(logger, 2000)
    for row in rows(20):
        log.add(row)
    assert logged(caplog, logging.INFO) == [
        "100 of 2,000 images, loss 0.2500 (validation 0.5000), 0:03:10 left",
        "1,000 of 2,000 images, loss 0.2500 (validation 0.5000), 0:01:40 left",
        "2,000 of 2,000 images, loss 0.2500 (validation 0.5000), 0:00:00 left",
    ]
    assert len(logged(caplog, logging.DEBUG)) == 20
    assert "images_seen 100, loss 0.25, validation_loss 0.5, images_per_second 10" in logged(caplog, logging.DEBUG)


def test_a_resumed_training_shows_its_first_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ddpm_kedro")
    log = RowLog(logger, 2000)
    for row in rows(20, start=14):
        log.add(row)
    assert [line.split(" of ")[0] for line in logged(caplog, logging.INFO)] == ["1,500", "2,000"]


def test_no_log_is_silent_for_long(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", logger="ddpm_kedro")
    minutes = iter(range(0, 10_000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: 60.0 * next(minutes))
    log = RowLog(logger, 10_000)
    for row in rows(40):
        log.add(row)
    assert len(logged(caplog, logging.INFO)) > 8


def test_a_terminal_shows_a_bar_instead_of_rows(terminal: StringIO, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ddpm_kedro")
    RowLog(logger, 100).add(rows(1)[0])
    assert caplog.messages == []


@pytest.mark.parametrize("total", [64, 76_000, 102_400_000])
def test_the_bar_of_a_training_fits_80_columns(total: int, terminal: StringIO) -> None:
    with training_progress(0, total) as update:
        update(total, "loss 0.1234  2170/s")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(f"{total:,} of {total:,}  loss 0.1234  2170/s" in line for line in lines)


def test_other_bars_vanish_at_the_end(terminal: StringIO) -> None:
    with progress.progress("sampling", 4, "images") as advance:
        advance(4)
    assert terminal.getvalue().endswith("\x1b[2K")  # erases the line


@pytest.mark.parametrize(
    ("seen", "images", "words"),
    [
        (64, 4_500, "0.014 passes"),
        (4_500, 4_500, "1 pass"),
        (76_000, 4_500, "17 passes"),
        (10**9, 10**6, "1,000 passes"),
    ],
)
def test_passes_are_rounded(seen: int, images: int, words: str) -> None:
    assert passes(seen, images) == words
