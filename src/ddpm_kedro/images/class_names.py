"""Class names that can be displayed and used in file names."""

from collections import Counter
from collections.abc import Iterable, Sequence

LONGEST = 100  # letters of a class name, and bytes of it in a file name


def one_line(text: str) -> str:
    """Return a text on one line: line breaks and other characters that cannot be printed are escaped."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def readable(names: Iterable[str]) -> list[str]:
    """Return distinct class names on one line, of at most ``LONGEST`` letters."""
    lines = [one_line(name) or "unnamed" for name in names]
    short = [line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines]
    counts = Counter(short)
    return [name if counts[name] == 1 else f"{name} (class {index})" for index, name in enumerate(short)]


def file_names(names: Sequence[str]) -> list[str]:
    """Return a part of a file name for each class, unique also on file systems that ignore case."""
    letters = ["".join(letter if letter.isalnum() else "-" for letter in name) for name in names]
    short = [name.encode()[:LONGEST].decode(errors="ignore") for name in letters]
    if len({name.casefold() for name in short}) == len(short):
        return short
    return [f"{index}-{name}" for index, name in enumerate(short)]
