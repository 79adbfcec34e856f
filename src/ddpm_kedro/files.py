"""Read the files of a run: an error says in one sentence which file is damaged, how, and what to do."""

import csv
import hashlib
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import Provenance

MISPLACED = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SafetensorError,
    SyntaxError,
    TypeError,
    UnpicklingError,
    ValueError,
    csv.Error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that the readers of all formats raise for a damaged file. Pillow also raises an OSError without errno."""
CHECKSUM = "checksum"
LONGEST = 200  # characters of a reason


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn errors that a damaged file causes in the block into a UserError. Errors of the disk are raised unchanged.

    Args:
        remedy: a sentence that says what to do.
    """
    try:
        yield
    except (UserError, *MISPLACED, *DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, MISPLACED):
            raise
        if isinstance(error, FileNotFoundError) and str(error.filename) == str(path):
            raise UserError(f"{path} is missing. {remedy}") from error
        raise UserError(f"{path} is damaged, or of another version: {reason_of(error)}. {remedy}") from error


def shown_path(path: Path | str) -> str:
    """Return a path relative to the working folder if it is below it; return another path or a URL unchanged."""
    return str(path).removeprefix(f"{Path.cwd()}/")


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    if isinstance(error, MISPLACED):
        return f"{error.filename}: {error.strerror}"
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:LONGEST]
    return line if isinstance(error, UserError) else f"{type(error).__name__} {line}".rstrip()


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the checksum of its content."""
    return document | {CHECKSUM: _checksum(document)}


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON file of names and values, and check its checksum, if any; call it within :func:`reading`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise UserError(f"{path.name} is not a JSON object")
    checksum = document.pop(CHECKSUM, None)
    if checksum not in {None, _checksum(document)}:
        raise UserError(
            f"the content of {path.name} does not match its checksum; remove its line {CHECKSUM} if you changed it"
        )
    return document


def provenance_of(document: dict[str, Any]) -> Provenance:
    """Return the provenance that :meth:`Provenance.as_dict` described."""
    parameters, inputs = document["parameters"], document["inputs"]
    if not (isinstance(parameters, dict) and isinstance(inputs, dict)):
        raise UserError("parameters and inputs are not JSON objects")
    return Provenance(parameters, inputs)


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_zip(path: Path, member: str = "") -> None:
    """Compare the parts of a zip file, as torch and NumPy write them, with their checksums: torch does not.

    Args:
        member: end of the names of the parts to check; by default all parts are checked.

    Raises:
        zipfile.BadZipFile, zlib.error: for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as part:
                while name.endswith(member) and part.read(2**20):
                    pass


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
