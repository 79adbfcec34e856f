"""The log file of a run: its details, whatever the terminal shows."""

import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path
from typing import Any

from ddpm_kedro import __version__
from ddpm_kedro.files import reason_of
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.provenance import redact_text

logger = logging.getLogger(__name__)
RUN_LOG = Path("08_reporting/run.log")  # in the data folder; the log of the previous run is run.log.1
DETAILED = {"kedro": logging.INFO, "ddpm_kedro": logging.DEBUG}
"""The level of each logger in the file; Kedro's debug lines repeat its other lines, and name every single image."""


class _RunLog(MemoryHandler):
    """Keep lines in memory until :meth:`open`, then write them to a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(capacity=sys.maxsize, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self.path, self.kept = path, set[Path]()

    def open(self) -> None:
        """Replace the log of the previous run; warn if that fails."""
        if self.target is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = _File(self.path, backupCount=1, encoding="utf-8", delay=True)
            if self.path.exists():
                file.doRollover()
        except OSError as error:
            _warn(self.path, error)
            return
        file.setFormatter(_Lines())
        self.setTarget(file)
        self.capacity = 1  # from now on, every line is written at once
        self.flush()

    def copy(self) -> None:
        """Append the log to the logs in the folders of :func:`keep_run_log`."""
        if self.target is None:
            return
        with suppress(OSError):  # reported when it happened first
            self.target.close()
        for folder in self.kept:
            try:
                with (folder / self.path.name).open("ab") as file:
                    file.write(self.path.read_bytes())
            except OSError as error:
                _warn(folder, error)


class _File(RotatingFileHandler):
    """A log file that gives one warning and ends when it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Write nothing more."""
        self.addFilter(lambda _: False)
        _warn(Path(self.baseFilename), sys.exc_info()[1])


class _Lines(logging.Formatter):
    """One line per event with the time in UTC, and tracebacks without secrets."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Remove secrets of URLs from a traceback; messages have none: see :mod:`ddpm_kedro.terminal`."""
        return redact_text(super().formatException(ei))


_open_logs: list[_RunLog] = []


@contextmanager
def run_log(data_root: Path) -> Iterator[None]:
    """Collect every line of the block, for ``08_reporting/run.log``; other handlers show what they showed before.

    The file is written from :func:`open_run_log` on. Other ranks than 0, and runs within a run, write none.
    """
    if _open_logs or not is_rank_0():
        yield
        return
    log, others = _RunLog(data_root / RUN_LOG), list(logging.getLogger().handlers)
    loggers = _levelled_loggers()
    levels, shown = [each.level for each in loggers], {each.name: each.getEffectiveLevel() for each in loggers}

    def shown_before(record: logging.LogRecord) -> bool:
        name = record.name
        while name and name not in shown:
            name = name.rpartition(".")[0]
        return record.levelno >= shown.get(name, logging.NOTSET)

    for handler in others:
        handler.addFilter(shown_before)
    for each in loggers:
        each.setLevel(min(DETAILED[each.name.partition(".")[0]], shown[each.name]))
    logging.getLogger().addHandler(log)
    _open_logs.append(log)
    try:
        logger.debug("ddpm_kedro %s, Python %s, %s", __version__, platform.python_version(), platform.platform())
        yield
    except BaseException:
        logger.debug("The run ended early.", exc_info=True)
        raise
    finally:
        _open_logs.remove(log)
        logging.getLogger().removeHandler(log)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        for handler in others:
            handler.removeFilter(shown_before)
        log.copy()


def open_run_log() -> None:
    """Start to write the log file, with everything that was logged so far; the earlier log is kept as run.log.1."""
    for log in _open_logs:
        log.open()


def keep_run_log(folder: Path) -> None:
    """Also keep the log in a folder, once the run has ended."""
    for log in _open_logs:
        log.kept.add(folder)


def _levelled_loggers() -> list[logging.Logger]:
    """Return the loggers of Kedro and the project, and the loggers below them that have their own level."""
    below = [name for name in logging.Logger.manager.loggerDict if name.partition(".")[0] in DETAILED]
    loggers = {name: logging.getLogger(name) for name in (*DETAILED, *below)}
    return [each for name, each in loggers.items() if each.level or name in DETAILED]


def _warn(path: Path, error: BaseException | None) -> None:
    logger.warning("The log %s is not written: %s", path, reason_of(error) if error else "unknown")
