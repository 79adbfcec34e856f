"""What made a thing: parameters and inputs, their fingerprint, and what has changed since."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


def fingerprint(*parts: Any) -> str:
    """A short name for plain data: equal data, equal name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested parameters."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed between two parameter trees, one readable line a value."""
    old, new = dict(flatten(earlier)), dict(flatten(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}" for name in names]


@dataclass(frozen=True)
class Provenance:
    """What made an image store, a model or samples; it lies on disk beside what it made.

    Attributes:
        parameters: those that shape it, by group, as plain data.
        inputs: the fingerprint of each catalog entry that it was made from.
    """

    parameters: dict[str, Any]
    inputs: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Equal parameters and inputs, equal name."""
        return fingerprint(self.parameters, *self.inputs.values())

    def changes(self, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
        """How what would make it now differs, one readable line a value; what is not given is not compared."""
        now = dict(flatten(parameters)) | dict(inputs)
        then = dict(flatten(self.parameters)) | self.inputs
        return differences(then, {name: now.get(name, value) for name, value in then.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a file."""
        return {"parameters": self.parameters, "inputs": self.inputs}
