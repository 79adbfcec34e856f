"""Log lines."""

import io
import logging

import pytest
from kedro.logging import RichHandler
from rich.console import Console

from ddpm_kedro.terminal import make_log_records_safe


@pytest.mark.parametrize("text", ["classes [b]old[/b]", "a folder [/b]"])
def test_brackets_are_printed_unchanged_on_a_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    handler = RichHandler(console=Console(file=file, width=100))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    make_log_records_safe()
    logging.getLogger("ddpm_kedro.ingestion.image_files").warning("Found %s.", text)
    assert text in file.getvalue()
