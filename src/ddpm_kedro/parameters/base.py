"""What all groups share: how values are checked, and what is said about a wrong one."""

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


class Group(BaseModel):
    """A group of parameters: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    excluded_from_fingerprint: ClassVar[frozenset[str]] = frozenset()
    """Names whose values do not shape what is made, so that they may change between a run and its continuation."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The values that decide what is made, as plain data: what names a run."""
        return self.model_dump(mode="json", exclude=set(self.excluded_from_fingerprint))
