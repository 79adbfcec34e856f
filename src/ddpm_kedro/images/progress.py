"""What a person sees while something takes long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


def bars(*columns: ProgressColumn, shown: bool = True) -> Progress:
    """Rich's, on a terminal; nothing elsewhere, or where they are not to be shown."""
    console = rich.get_console()
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), refresh_per_second=2)


@contextmanager
def progress(what: str, total: int | None, of: str = "") -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; it is moved by so many.

    Args:
        what: is done.
        total: of them are to be done, if that is known.
        of: what is counted.
    """
    counted = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(), TextColumn(f"{counted} {of}")]
    columns += [] if total is None else [TimeRemainingColumn(), TextColumn("left")]
    with bars(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)
