"""The sizes that keep the source readable."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/ddpm_kedro"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES_OF_FILE, MAX_LINES_OF_FUNCTION, MAX_LINES_OF_IMAGES = 300, 40, 500


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert lines(path) <= MAX_LINES_OF_FILE
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES_OF_FUNCTION} == {}


def test_the_image_store_package_is_small() -> None:
    assert sum(map(lines, (PACKAGE / "images").rglob("*.py"))) < MAX_LINES_OF_IMAGES


def test_no_two_modules_of_a_package_differ_only_by_a_plural() -> None:
    names = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in FILES}
    assert [name for name in names if f"{name}s" in names] == []
