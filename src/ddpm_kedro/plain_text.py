"""Reject values that YAML silently changes, such as ``01``, ``no`` and ``1:30``, and keep text as text."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from pydantic import BaseModel

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import AnyWord, APath, Parameters

INTEGER = re.compile(r"[-+]?(0|[1-9][\d_]*)")
"""Decimal integers; YAML also reads octal, hexadecimal and base 60."""
INT, STR, NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "str", "null"))

LOADER = get_yaml_loader()


class TextNames:
    """Know which parameters take text.

    Args:
        model: the model of all groups.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._names: dict[str, list[Any]] = {}
        for group, field in model.model_fields.items():
            fields = getattr(field.annotation, "model_fields", None)
            if fields is None:  # a dictionary of text: use
                self._names[f"{group}."] = _kinds(field.annotation)
            else:
                self._names |= {
                    f"{group}.{name}": _kinds(each.annotation, each.metadata) for name, each in fields.items()
                }

    def takes_text(self, name: str) -> bool:
        """Return whether a parameter takes text or a list of text."""
        return str in self._kinds(name)

    def takes_any_word(self, name: str) -> bool:
        """Return whether a parameter takes any word, also ``null``."""
        return AnyWord in self._kinds(name)

    def is_path(self, name: str) -> bool:
        """Return whether a parameter takes a path."""
        return APath in self._kinds(name)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the group and the name of each parameter that takes text."""
        for name, kinds in self._names.items():
            group, _, key = name.partition(".")
            if key and str in kinds:
                yield group, key

    def _kinds(self, name: str) -> list[Any]:
        return self._names.get(name) or self._names.get(f"{name.partition('.')[0]}.", [])


def _kinds(annotation: Any, metadata: Sequence[Any] = ()) -> list[Any]:
    """Return all types in an annotation, including those of its metadata."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    inner = [kind for each in get_args(annotation) if isinstance(each, type) or get_args(each) for kind in _kinds(each)]
    return [annotation, *inner, *(type(each) for each in metadata)]


TEXT = TextNames(Parameters)


def value_of(name: str, text: str) -> Any:
    """Return the value of a parameter that is given as text on the command line.

    Raises:
        UserError: if the text is not YAML, or a number that is not decimal.
    """
    if TEXT.takes_text(name):
        return None if not text or (text == "null" and not TEXT.takes_any_word(name)) else text
    try:
        node = yaml.compose(text, LOADER)
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except yaml.YAMLError as error:
        raise UserError(f"Parameter '{name}' = {text!r} cannot be read: {getattr(error, 'problem', error)}.") from error
    if isinstance(node, yaml.ScalarNode):
        _check_number(name, node)
    assert isinstance(value, dict)
    return value["value"]


def check_file(file: str, content: str, below: Sequence[str] = ()) -> None:
    """Check a YAML file for values that YAML changes.

    Args:
        file: its name, for messages.
        content: its text.
        below: keys that lead to the parameters.

    Raises:
        UserError: for text that needs quotes, and numbers that are not decimal.
    """
    node = yaml.compose(content, LOADER)
    for key in below:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
    for name, scalar in _scalars(node):
        try:
            if TEXT.takes_text(name):
                _check_text(name, scalar)
            else:
                _check_number(name, scalar)
        except UserError as error:
            raise UserError(f"{file}, line {scalar.start_mark.line + 1}: {error}") from None


def _scalars(node: yaml.Node | None, name: str = "") -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield the unquoted values below a node with their full names."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, f"{name}.{key.value}" if name else str(key.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _scalars(value, name)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        yield name, node


def _check_text(name: str, node: yaml.ScalarNode) -> None:
    if node.tag in {STR, NULL}:
        return
    value = yaml.load(node.value, LOADER)  # noqa: S506  a subclass of the safe loader
    if isinstance(value, bool) or str(value) != node.value:
        raise UserError(
            f"{name} takes text, but YAML reads {node.value} as {value}. Write it in quotes: '{node.value}'."
        )


def _check_number(name: str, node: yaml.ScalarNode) -> None:
    if node.tag == INT and not INTEGER.fullmatch(node.value):
        value = yaml.load(node.value, LOADER)  # noqa: S506
        raise UserError(f"{name} = {node.value} is {value} in YAML. Write numbers in decimal, without leading zeros.")
