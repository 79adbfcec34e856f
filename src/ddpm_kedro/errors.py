"""Errors that a user can fix, and hints for their messages."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """A user error. The message says what was found, where, and what to do; no traceback is shown."""


class ConflictError(UserError):
    """Values that are valid alone, but not together."""


class MissingSourceError(UserError):
    """The files of a source are missing or unreachable. Ignored while the images made from them exist."""


class DivergedError(UserError):
    """The loss became NaN or infinite.

    Attributes:
        batch: the input of the first such step, tensors by name.
    """

    def __init__(self, message: str, batch: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.batch = batch


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then each error that caused the one before."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def nearest(word: str, accepted: list[str]) -> str:
    """Return the end of an error message about an unknown word: similar words, and all accepted ones.

    >>> nearest("batch_sise", ["batch_size", "seed"])
    "Did you mean 'batch_size'? Accepted: batch_size, seed."
    """
    close = get_close_matches(word, accepted, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{meant}Accepted: {', '.join(accepted)}."
