"""A killed training resumes and ends with equal bytes. A short form of ``make soak``."""

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.slow
def test_a_killed_training_ends_with_equal_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak(2, 0, tmp_path, images=560) == []
    output = capsys.readouterr().out
    assert output.count("kill ") == 2
    assert "resumes after" in output
