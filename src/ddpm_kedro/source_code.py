"""The version of the code that a node executes."""

import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
IMPORT = re.compile(rf"^\s*from {PACKAGE.name}\.([\w.]+) import", re.MULTILINE)
WITHOUT_EFFECT = {"errors", "files", "kedro_adapter", "nothing", "parameters", "progress", "provenance"}
"""Modules and packages that change no output: messages, checks, names of runs, and parameters, whose values count."""


@cache
def source_fingerprint(module: str) -> str:
    """Return a hash of the sources of a module of this package and of everything that it imports from the package.

    Args:
        module: full name, such as ``ddpm_kedro.pipelines.sampling.nodes``.
    """
    name = module.removeprefix(f"{PACKAGE.name}.")
    content = [path.read_bytes() for path in sorted(source_files(name))]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:12]


def source_files(name: str) -> set[Path]:
    """Return the files of a module, named below the package, of its imports, and the templates that they name."""
    found, queue = set[Path](), [name]
    while queue:
        name = queue.pop()
        for path in () if name.partition(".")[0] in WITHOUT_EFFECT else _files_of(name):
            if path not in found:
                found.add(path)
                text = path.read_text(encoding="utf-8")
                queue += IMPORT.findall(text)
                found |= {other for other in path.parent.glob("*.j2") if other.name in text}
    return found


def _files_of(name: str) -> list[Path]:
    """Return the file of a module, and the ``__init__.py`` of each package around it, which Python imports, too."""
    path = PACKAGE / name.replace(".", "/")
    packages = [folder / "__init__.py" for folder in (path, *path.parents) if PACKAGE in folder.parents]
    return [file for file in (path.with_suffix(".py"), *packages) if file.is_file()]
