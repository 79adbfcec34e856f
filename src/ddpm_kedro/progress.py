"""Progress bars on a terminal, and progress as plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def bars(*columns: ProgressColumn, shown: bool = True) -> Progress:
    """Return rich's progress bars; they show nothing without a terminal, or if ``shown`` is False."""
    console = rich.get_console()
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), refresh_per_second=2)


@contextmanager
def progress(what: str, total: int | None, of: str = "") -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield a function that advances it by a number.

    Args:
        what: name of the task.
        total: number of items, if known.
        of: unit of the items.
    """
    counted = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(), TextColumn(f"{counted} {of}")]
    columns += [] if total is None else [TimeRemainingColumn(), TextColumn("left")]
    with bars(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def training_progress(completed: int, total: int, shown: bool = True) -> Iterator[Callable[[int, str], None]]:
    """Show the progress of a training on a terminal; yield a function that takes images seen and a text."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images  {task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with bars(*columns, shown=shown) as bar:
        task = bar.add_task("", total=total, completed=completed)
        yield lambda images_seen, text: bar.update(task, completed=images_seen, description=text)


def summary(row: dict[str, float], total: int) -> str:
    """Return one row of the history as one plain line."""
    left = timedelta(seconds=round((total - row["images_seen"]) / max(row["images_per_second"], 1e-9)))
    return (
        f"{row['images_seen']:,.0f} of {total:,} images, loss {row['loss']:.4f}, "
        f"validation loss {row['validation_loss']:.4f}, learning rate {row['learning_rate']:.2e}, "
        f"{row['images_per_second']:.0f} images/s, {left} left"
    )
