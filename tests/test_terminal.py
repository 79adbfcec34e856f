"""Log lines."""

import io
import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.logging import RichHandler
from rich.console import Console

from ddpm_kedro.terminal import LineFormatter, format_logs, make_log_records_safe


@pytest.mark.parametrize("text", ["classes [b]old[/b]", "a folder [/b]"])
def test_brackets_are_printed_unchanged_on_a_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    handler = RichHandler(console=Console(file=file, width=100))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    make_log_records_safe()
    logging.getLogger("ddpm_kedro.ingestion.image_files").warning("Found %s.", text)
    assert text in file.getvalue()


def record(level: int) -> logging.LogRecord:
    made = logging.LogRecord("ddpm_kedro.x", level, "x.py", 1, "Found %s.", ("it",), None)
    made.created = 45296.0  # 1970-01-01 12:34:56 UTC
    return made


@pytest.mark.parametrize(
    ("timed", "level", "line"),
    [
        (True, logging.INFO, "12:34:56Z Found it."),
        (True, logging.WARNING, "12:34:56Z WARNING: Found it."),
        (False, logging.INFO, "Found it."),
        (False, logging.DEBUG, "DEBUG: Found it."),
    ],
)
def test_a_line_has_its_level_unless_that_is_info(
    timed: bool, level: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert LineFormatter(timed).format(record(level)) == line
    finally:
        monkeypatch.undo()
        time.tzset()


CONFIGURED = {"loggers": {"kedro": {"level": "INFO"}, "ddpm_kedro": {"level": "DEBUG"}}, "root": {"handlers": ["rich"]}}


def configure(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], is_terminal: bool) -> dict[str, Any] | None:
    """Return the configuration that is applied, if any."""
    applied: list[dict[str, Any]] = []
    logs = SimpleNamespace(data=config, configure=applied.append)
    monkeypatch.setattr("ddpm_kedro.terminal.LOGGING", logs)
    monkeypatch.setattr("ddpm_kedro.terminal.rich.get_console", lambda: SimpleNamespace(is_terminal=is_terminal))
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    format_logs()
    return applied[0] if applied else None


@pytest.mark.parametrize(("is_terminal", "handlers"), [(True, ["rich"]), (False, ["plain"])])
def test_the_levels_of_the_configuration_hold_with_and_without_a_terminal(
    is_terminal: bool, handlers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEDRO_LOGGING_CONFIG", raising=False)
    applied = configure(monkeypatch, CONFIGURED, is_terminal)
    assert applied is not None
    assert applied["loggers"] == CONFIGURED["loggers"]
    assert applied["root"]["handlers"] == handlers
    [handler] = logging.getLogger().handlers
    assert isinstance(handler.formatter, LineFormatter)
    assert handler.formatter.timed is not is_terminal


def test_kedros_own_configuration_gets_the_projects_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEDRO_LOGGING_CONFIG", raising=False)
    applied = configure(monkeypatch, {"loggers": {"kedro": {"level": "INFO"}}, "root": {"handlers": ["rich"]}}, True)
    assert applied is not None
    assert applied["loggers"] == {"kedro": {"level": "WARNING"}, "ddpm_kedro": {"level": "INFO"}}


def test_a_configuration_of_ones_own_is_left_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEDRO_LOGGING_CONFIG", "my_logging.yml")
    assert configure(monkeypatch, CONFIGURED, is_terminal=False) is None
