"""The table of a plan, for a terminal and for a log."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.table import Table

WIDTH = 80
GAP = 2


def plain_table(rows: Iterable[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Return the lines of a table without borders, at most ``width`` columns wide; the last column is wrapped."""
    rows = [tuple(row) for row in rows]
    widths = [max((len(row[column]) for row in rows), default=0) + GAP for column in range(max(map(len, rows)) - 1)]
    indent = sum(widths)
    lines = list[str]()
    for *cells, last in rows:
        start = "".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True))
        wrapped = wrap(last, max(20, width - indent)) or [""]
        lines += [f"{start}{wrapped[0]}".rstrip(), *(f"{' ' * indent}{line}" for line in wrapped[1:])]
    return lines


def rich_table(rows: Iterable[Sequence[str]], title: str) -> Table:
    """Return the same table for a terminal."""
    table = Table("choice", "value", "why", box=None, title=title, title_justify="left", width=WIDTH)
    for row in rows:
        table.add_row(*row)
    return table
