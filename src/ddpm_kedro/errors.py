"""Errors that a person can mend, and hints for them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """A person's mistake. The message says what was found, where, and what to do; no traceback is shown."""


class ConflictError(UserError):
    """Each value is accepted by itself, but not together with another one."""


class MissingSourceError(UserError):
    """The files of a source cannot be reached; nobody misses them while the images made of them are there."""


class DivergedError(UserError):
    """These parameters do not train.

    Attributes:
        batch: tensors by name, what the first step that went wrong was given.
    """

    def __init__(self, message: str, batch: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.batch = batch


def nearest(word: str, accepted: list[str]) -> str:
    """The end of an error message that suggests what may have been meant.

    >>> nearest("batch_sise", ["batch_size", "seed"])
    "Did you mean 'batch_size'? Accepted: batch_size, seed."
    """
    close = get_close_matches(word, accepted, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{meant}Accepted: {', '.join(accepted)}."
