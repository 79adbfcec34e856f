"""A training that is killed goes on as if it had not been: a short version of ``make soak``."""

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak(2, 0, tmp_path, images=560) == []
    said = capsys.readouterr().out
    assert said.count("kill ") == 2
    assert "resumes after" in said
