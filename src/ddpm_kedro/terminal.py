"""Format log lines: coloured on a terminal, otherwise one plain line per event with the time in UTC."""

import logging
import os
import sys
import time
from contextlib import suppress
from typing import Any

import rich
from kedro.framework.project import LOGGING

from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.provenance import redact_text

LEVELS = {"kedro": {"level": "WARNING"}, "ddpm_kedro": {"level": "INFO"}}
"""The levels where there is no ``conf/logging.yml``."""
PLAIN = {"plain": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}


class LineFormatter(logging.Formatter):
    """Format a line without its level, unless that is not INFO; so that 80 columns are enough.

    Args:
        timed: whether the line begins with the time in UTC.
    """

    converter = staticmethod(time.gmtime)  # to compare logs of several machines

    def __init__(self, timed: bool) -> None:
        super().__init__("%(asctime)s %(message)s" if timed else "%(message)s", "%H:%M:%SZ")
        self.timed = timed

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the line without a traceback."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        return f"{f'{record.asctime} ' if self.timed else ''}{level}{record.message}"


def only_rank_0_logs() -> None:
    """Log only warnings and errors on other ranks than 0: the rest would repeat."""
    if not is_rank_0():
        levels = {"kedro": logging.WARNING, "kedro.io": logging.ERROR, "ddpm_kedro": logging.WARNING}
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def make_log_records_safe() -> None:
    """Redact URLs in every log message, and escape bytes of paths that are not UTF-8.

    In this project's messages, ``[…]`` is not rich's markup: a path or a name may contain it.
    """
    make_record = logging.getLogRecordFactory()

    def make_safe_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.name.startswith(__package__):
            record.markup = False
        with suppress(TypeError, ValueError):  # wrong arguments: logging itself reports them
            message = record.getMessage()
            safe = redact_text(message).encode("utf-8", "backslashreplace").decode()
            if safe != message:
                record.msg, record.args = safe, ()
        return record

    logging.setLogRecordFactory(make_safe_record)


def format_logs() -> None:
    """Log lines that 80 columns are enough for, and plain ones unless the output is a terminal: rich would wrap them.

    The levels are set in ``conf/logging.yml``. A configuration named in KEDRO_LOGGING_CONFIG is left unchanged.
    """
    if "KEDRO_LOGGING_CONFIG" in os.environ:
        return
    is_terminal = rich.get_console().is_terminal
    config = {**LOGGING.data}
    if "ddpm_kedro" not in config.get("loggers", {}):
        config["loggers"] = LEVELS
    if not is_terminal:
        config |= {"handlers": PLAIN, "root": {"handlers": [*PLAIN], "level": "WARNING"}}
        sys.excepthook = sys.__excepthook__  # Kedro had installed rich tracebacks of 80 columns
    LOGGING.configure(config)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LineFormatter(timed=not is_terminal))
