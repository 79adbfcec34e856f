"""The log file of a run."""

import logging
import re
from pathlib import Path

import pytest

from ddpm_kedro.run_log import keep_run_log, open_run_log, run_log
from tests.conftest import Project

OURS, KEDRO = logging.getLogger("ddpm_kedro.a_module"), logging.getLogger("kedro.io")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="kedro")
    caplog.set_level("INFO", logger="ddpm_kedro")


def log_of(folder: Path, number: str = "") -> str:
    return (folder / f"08_reporting/run.log{number}").read_text()


def test_the_file_has_lines_that_the_terminal_does_not_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with run_log(tmp_path):
        OURS.debug("before the first node")
        open_run_log()
        OURS.info("shown")
        OURS.debug("a detail")
        KEDRO.info("Loading data")
        KEDRO.debug("Adding a dataset")
        KEDRO.warning("a warning")
    OURS.debug("after the run")
    assert caplog.messages == ["shown", "a warning"]
    lines = log_of(tmp_path).splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ DEBUG   ddpm_kedro.run_log: ddpm_kedro .*", lines[0])
    assert [line.split(": ", 1)[1] for line in lines[1:]] == [
        "before the first node",
        "shown",
        "a detail",
        "Loading data",
        "a warning",
    ]


def test_levels_of_the_configuration_hold_on_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="ddpm_kedro")
    caplog.set_level("DEBUG", logger="kedro")
    with run_log(tmp_path):
        OURS.debug("a detail")
        KEDRO.debug("Adding a dataset")
    assert caplog.messages[1:] == ["a detail", "Adding a dataset"]
    assert logging.getLogger("ddpm_kedro").level == logging.DEBUG


def test_a_command_that_ends_before_its_first_node_keeps_the_earlier_log(tmp_path: Path) -> None:
    for text in ("the first run", "the second run"):
        with run_log(tmp_path):
            open_run_log()
            OURS.info(text)
    with pytest.raises(ValueError, match="a mistake"), run_log(tmp_path):
        raise ValueError("a mistake")
    assert "the second run" in log_of(tmp_path)
    assert "the first run" in log_of(tmp_path, ".1")


def test_the_log_of_a_failed_run_has_its_traceback_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="not there"), run_log(tmp_path):
        open_run_log()
        raise ValueError("https://me:hidden@host/a.zip?token=hidden is not there")
    assert "Traceback" in log_of(tmp_path)
    assert "https://host/a.zip" in log_of(tmp_path)
    assert "hidden" not in log_of(tmp_path)
    assert caplog.messages == []  # the command shows its own message


def test_a_run_within_a_run_writes_into_the_same_log(tmp_path: Path) -> None:
    with run_log(tmp_path):
        with run_log(tmp_path / "other"):
            open_run_log()
            OURS.info("first pipeline")
        open_run_log()
        OURS.info("second pipeline")
    assert re.findall(r"\w+ pipeline", log_of(tmp_path)) == ["first pipeline", "second pipeline"]


def test_other_ranks_write_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with run_log(tmp_path):
        open_run_log()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_opened_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "08_reporting").write_text("a file")
    with run_log(tmp_path):
        open_run_log()
        OURS.info("shown")
    assert "08_reporting/run.log is not written:" in caplog.messages[0]
    assert caplog.messages[1:] == ["shown"]


def test_a_log_that_cannot_be_written_any_more_gives_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run_log(tmp_path):
        open_run_log()
        [log] = [handler for handler in logging.getLogger().handlers if hasattr(handler, "target")]
        log.target.stream = open("/dev/full", "w")  # noqa: SIM115  the handler closes it
        OURS.info("one")
        OURS.info("two")
    first, warning, second = caplog.messages
    assert (first, second) == ("one", "two")
    assert "run.log is not written: OSError [Errno 28] No space left on device" in warning


def test_a_run_keeps_all_its_logs(tmp_path: Path) -> None:
    for text in ("the first half", "the second half"):
        with run_log(tmp_path):
            open_run_log()
            OURS.info(text)
            keep_run_log(tmp_path)
            OURS.info("the last line")
    assert re.findall("the .*", (tmp_path / "run.log").read_text()) == [
        "the first half",
        "the last line",
        "the second half",
        "the last line",
    ]


def test_the_log_of_a_run_has_the_parameters_and_kedros_lines_and_is_kept(finished: Project) -> None:
    log = log_of(finished.data)
    assert re.search(r"DEBUG .*optimizer: name adam, lr 0.003", log)
    assert "kedro.pipeline.node: Running node: train_model" in log
    assert "Loading data from training_images" in log
    assert re.search(r"DEBUG .*images_seen 32, loss 0\.\d+, learning_rate", log)
    [kept] = (finished.data / "runs").glob("*/run.log")
    assert kept.read_text() == log
