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

PLAIN = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%SZ"},
    },
    "handlers": {"plain": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"}},
    "loggers": {"kedro": {"level": "INFO"}, "kedro.io": {"level": "WARNING"}, "ddpm_kedro": {"level": "INFO"}},
    "root": {"handlers": ["plain"], "level": "WARNING"},
}


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


def plain_logs_without_a_terminal() -> None:
    """Log plain lines unless the output is a terminal: rich would wrap them at 80 columns.

    A configuration named in KEDRO_LOGGING_CONFIG is left unchanged.
    """
    if not rich.get_console().is_terminal and "KEDRO_LOGGING_CONFIG" not in os.environ:
        logging.Formatter.converter = time.gmtime  # to compare logs of several machines
        LOGGING.configure(PLAIN)
        sys.excepthook = sys.__excepthook__  # Kedro had installed rich tracebacks of 80 columns
