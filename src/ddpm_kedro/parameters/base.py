"""Types and checks that all parameter groups share."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""The seeds that torch's generators accept."""


class AnyWord:
    """Mark a parameter that accepts any word as a name, also ``null``."""


class APath:
    """Mark a path. A leading ``~`` is replaced: no shell does so in ``--params dataset.path=~/images``."""


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"text is expected, but YAML reads it as {value}: write it in quotes")  # noqa: TRY004  Pydantic
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
"""Text that may look like a number, which YAML reads as a number."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


AnyPath = Annotated[str, PlainValidator(_text), PlainSerializer(lambda path: path, return_type=Any)]
"""A path or URL; Pydantic's strings reject a path whose bytes are not UTF-8."""
TextPath = Annotated[AnyPath, BeforeValidator(_as_text), APath()]
"""A path that may look like a number."""


class _Excluded:
    """The mark of :data:`NotInFingerprint`."""


T = TypeVar("T")
NotInFingerprint = Annotated[T, _Excluded()]
"""A parameter that does not affect the result: it may differ when a run is resumed."""


class Group(BaseModel):
    """A group of parameters: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def excluded_from_fingerprint(cls) -> set[str]:
        """Return the names of the parameters that do not affect the result."""
        return {name for name, field in cls.model_fields.items() if _Excluded in map(type, field.metadata)}

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return the values that affect the result, as plain data; they give the run id."""
        return self.model_dump(mode="json", exclude=self.excluded_from_fingerprint())
