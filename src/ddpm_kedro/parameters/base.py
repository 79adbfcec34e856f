"""What all groups share: how values are checked, and what is said about a wrong one."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""What torch's generators take."""


class AnyWord:
    """Marks a parameter that takes any word, ``null`` too, as a name."""


class APath:
    """Marks a path. ``~`` is the home folder: no shell replaces it in ``--params dataset.path=~/images``."""


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"text is expected, but YAML made {value} of it: write it in quotes")  # noqa: TRY004  Pydantic
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
"""Text that may look like a number: YAML makes a number of it."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


AnyPath = Annotated[str, PlainValidator(_text), PlainSerializer(lambda path: path, return_type=Any)]
"""A path or URL; Pydantic's own strings refuse a path whose bytes are not UTF-8."""
TextPath = Annotated[AnyPath, BeforeValidator(_as_text), APath()]
"""A path that may look like a number."""


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


class Group(BaseModel):
    """A group of parameters: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Names whose values do not shape what is made, so that they may change between a run and its continuation."""

    def shaping(self) -> dict[str, Any]:
        """The values that decide what is made, as plain data: what names a run."""
        return self.model_dump(mode="json", exclude=set(self.without_effect))
