"""Reject values that YAML silently changes, such as ``01``, ``no`` and ``1:30``, and keep text as text."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from ddpm_kedro.errors import UserError
from ddpm_kedro.parameters import AnyWord, Parameters

INTEGER = re.compile(r"[-+]?(0|[1-9][\d_]*)")
"""Decimal integers; YAML also reads octal, hexadecimal and base 60."""
INT, STR, NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "str", "null"))

LOADER = get_yaml_loader()


def types_of(name: str) -> list[Any]:
    """Return the types that a parameter takes, with markers such as ``APath``; none if it is unknown."""
    group, _, key = name.partition(".")
    field = Parameters.model_fields.get(group)
    fields = getattr(field and field.annotation, "model_fields", None)
    if fields is not None:
        field = fields.get(key)  # otherwise the group is a dictionary of text: use
    return _types_in(field.annotation, field.metadata) if field else []


def text_parameters() -> Iterator[tuple[str, str]]:
    """Yield the group and the name of each parameter that takes text."""
    for group, field in Parameters.model_fields.items():
        for name in getattr(field.annotation, "model_fields", ()):
            if str in types_of(f"{group}.{name}"):
                yield group, name


def _types_in(annotation: Any, metadata: Sequence[Any] = ()) -> list[Any]:
    """Return all types in an annotation, including the types in its metadata."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    inner = [
        found for each in get_args(annotation) if isinstance(each, type) or get_args(each) for found in _types_in(each)
    ]
    return [annotation, *inner, *(type(each) for each in metadata)]


def value_of(name: str, text: str) -> Any:
    """Return the value of a parameter that is given as text on the command line.

    Raises:
        UserError: if the text is not YAML, or a number that is not decimal.
    """
    types = types_of(name)
    if str in types:
        return None if not text or (text == "null" and AnyWord not in types) else text
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
            if str in types_of(name):
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
