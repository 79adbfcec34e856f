"""Parameters that take text, and values that YAML changes before anybody sees them: ``01``, ``no``, ``1:30``."""

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
"""How integers are written so that everybody reads the same: not in octal, hexadecimal or base 60."""
INT, STR, NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "str", "null"))

LOADER = get_yaml_loader()


class TextNames:
    """The names of the parameters that take text.

    Args:
        model: of all groups.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._names: dict[str, list[Any]] = {}
        for group, field in model.model_fields.items():
            fields = getattr(field.annotation, "model_fields", None)
            if fields is None:  # a dictionary of text, such as use
                self._names[f"{group}."] = _kinds(field.annotation)
            else:
                self._names |= {
                    f"{group}.{name}": _kinds(each.annotation, each.metadata) for name, each in fields.items()
                }

    def takes_text(self, name: str) -> bool:
        """Return whether a parameter takes text; the items of a list count."""
        return str in self._kinds(name)

    def takes_any_word(self, name: str) -> bool:
        """Return whether even ``null`` may be a name."""
        return AnyWord in self._kinds(name)

    def is_path(self, name: str) -> bool:
        """Return whether a parameter takes a path."""
        return APath in self._kinds(name)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Return group and name of each."""
        for name, kinds in self._names.items():
            group, _, key = name.partition(".")
            if key and str in kinds:
                yield group, key

    def _kinds(self, name: str) -> list[Any]:
        return self._names.get(name) or self._names.get(f"{name.partition('.')[0]}.", [])


def _kinds(annotation: Any, metadata: Sequence[Any] = ()) -> list[Any]:
    """Return all types in an annotation, and the types of what it is annotated with."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    inner = [kind for each in get_args(annotation) if isinstance(each, type) or get_args(each) for kind in _kinds(each)]
    return [annotation, *inner, *(type(each) for each in metadata)]


TEXT = TextNames(Parameters)


def value_of(name: str, text: str) -> Any:
    """Return the value that a text on the command line stands for.

    Raises:
        UserError: if it is no YAML, or a number that not everybody reads the same.
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
    """Refuse values of a YAML file that YAML changes.

    Args:
        file: its name, for messages.
        content: of the file.
        below: keys that lead to the parameters.

    Raises:
        UserError: for text that must stand in quotes, and numbers that not everybody reads the same.
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
    """Return the unquoted values below a node with their full names."""
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
    value = yaml.load(node.value, LOADER)  # noqa: S506  it derives from the safe one
    if isinstance(value, bool) or str(value) != node.value:
        raise UserError(
            f"{name} takes text, but YAML reads {node.value} as {value}. Write it in quotes: '{node.value}'."
        )


def _check_number(name: str, node: yaml.ScalarNode) -> None:
    if node.tag == INT and not INTEGER.fullmatch(node.value):
        value = yaml.load(node.value, LOADER)  # noqa: S506
        raise UserError(f"{name} = {node.value} is {value} in YAML. Write numbers in decimal, without leading zeros.")
