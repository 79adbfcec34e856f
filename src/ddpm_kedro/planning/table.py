"""The table of a plan, for a terminal and for a log."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from textwrap import wrap

from rich.table import Table

WIDTH, CHOICE, VALUE, GAP = 80, 13, 26, 2  # columns


def plain_table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table without borders, at most WIDTH columns wide."""
    lines = list[str]()
    for choice, value, why in rows:
        values = _wrap(value, VALUE)
        reasons = _wrap(why, WIDTH - CHOICE - VALUE - 2 * GAP)
        for first, second, third in zip_longest([choice], values, reasons, fillvalue=""):
            lines.append(f"{first.ljust(CHOICE + GAP)}{second.ljust(VALUE + GAP)}{third}".rstrip())
    return lines


def _wrap(text: str, width: int) -> list[str]:
    return wrap(text, width, break_on_hyphens=False) or [""]


def rich_table(rows: Iterable[Sequence[str]], title: str) -> Table:
    """Return the same table for a terminal."""
    table = Table(box=None, title=title, title_justify="left", width=WIDTH, show_header=False)
    for size in (CHOICE, VALUE, WIDTH - CHOICE - VALUE - 2 * GAP):
        table.add_column(width=size, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
