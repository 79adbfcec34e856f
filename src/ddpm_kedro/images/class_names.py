"""Names of classes as people and file names can show them."""

from collections import Counter
from collections.abc import Iterable, Sequence

LONGEST = 100  # letters of a class name, and bytes of it in a file name


def one_line(text: str) -> str:
    """Return a text with line breaks and whatever else cannot be printed as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def readable(names: Iterable[str]) -> list[str]:
    """Return class names of one line and at most ``LONGEST`` letters, no two of which are equal."""
    lines = [one_line(name) or "unnamed" for name in names]
    found = [line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines]
    counts = Counter(found)
    return [name if counts[name] == 1 else f"{name} (class {index})" for index, name in enumerate(found)]


def file_names(names: Sequence[str]) -> list[str]:
    """Return a part of a file name for each class, unique on file systems that ignore case, too."""
    letters = ["".join(letter if letter.isalnum() else "-" for letter in name) for name in names]
    short = [name.encode()[:LONGEST].decode(errors="ignore") for name in letters]
    if len({name.casefold() for name in short}) == len(short):
        return short
    return [f"{index}-{name}" for index, name in enumerate(short)]
