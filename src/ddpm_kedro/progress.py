"""Progress bars on a terminal, and progress as plain lines elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import rich
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

LONGEST_SILENCE = 600.0
"""Seconds between two lines on the progress of a training where no bar is shown."""


def bars(*columns: ProgressColumn, shown: bool = True, transient: bool = False) -> Progress:
    """Return rich's progress bars; they show nothing without a terminal, or if ``shown`` is False.

    Args:
        columns: what the bars show.
        shown: whether they are shown.
        transient: whether they vanish at the end.
    """
    console = rich.get_console()
    disable = not (shown and console.is_terminal)
    return Progress(*columns, console=console, disable=disable, transient=transient, refresh_per_second=2)


@contextmanager
def progress(what: str, total: int | None, of: str = "") -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal until the block ends; yield a function that advances it by a number.

    Args:
        what: name of the task.
        total: number of items, if known.
        of: unit of the items.
    """
    counted = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(bar_width=None), TextColumn(f"{counted} {of}")]
    columns += [] if total is None else [TimeRemainingColumn(), TextColumn("left")]
    with bars(*columns, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def training_progress(completed: int, total: int, shown: bool = True) -> Iterator[Callable[[int, str], None]]:
    """Show the progress of a training on a terminal; yield a function that takes images seen and a text."""
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}  {task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with bars(*columns, shown=shown) as bar:
        task = bar.add_task("", total=total, completed=completed)
        yield lambda images_seen, text: bar.update(task, completed=images_seen, description=text)


def passes(images_seen: int, training_images: int) -> str:
    """Return how often each training image was seen, in words."""
    number = images_seen / max(training_images, 1)
    text = f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
    return f"{text} {'pass' if text == '1' else 'passes'}"


def gigabytes(size: float) -> str:
    """Return a number of bytes in GB (10⁹ bytes).

    >>> gigabytes(2.5e9)
    '2.5 GB'
    """
    return f"{size / 1e9:.1f} GB"


class RowLog:
    """Log the rows of a history while it grows: all at debug level, a few at info level.

    These are the first row, the row at half of the training, the last one, and a row after ``LONGEST_SILENCE``; on a
    terminal none, because it shows a progress bar.

    Args:
        logger: the logger of the lines.
        total: length of the training in images seen.
    """

    def __init__(self, logger: logging.Logger, total: int) -> None:
        self.logger, self.total = logger, total
        self.logged, self.when = -1.0, 0.0

    def add(self, row: dict[str, float]) -> None:
        """Log a row."""
        seen, half = row["images_seen"], self.total / 2
        due = self.logged < 0 or seen >= self.total or self.logged < half <= seen
        if (due or time.monotonic() - self.when > LONGEST_SILENCE) and not rich.get_console().is_terminal:
            left = timedelta(seconds=round((self.total - seen) / max(row["images_per_second"], 1e-9)))
            losses = f"loss {row['loss']:.4f} (validation {row['validation_loss']:.4f})"
            self.logger.info("%s of %s images, %s, %s left", f"{seen:,.0f}", f"{self.total:,}", losses, left)
            self.logged, self.when = seen, time.monotonic()
        self.logger.debug("%s", ", ".join(f"{name} {value:.6g}" for name, value in row.items()))
