"""What a person sees while training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ddpm_kedro.images.progress import bars


@contextmanager
def progress_bar(completed: int, total: int, shown: bool = True) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, nothing elsewhere; ``update(images_seen, text)`` moves it."""
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
    """One row of the history as one plain line."""
    left = timedelta(seconds=round((total - row["images_seen"]) / max(row["images_per_second"], 1e-9)))
    return (
        f"{row['images_seen']:,.0f} of {total:,} images, loss {row['loss']:.4f}, "
        f"validation loss {row['validation_loss']:.4f}, learning rate {row['learning_rate']:.2e}, "
        f"{row['images_per_second']:.0f} images/s, {left} left"
    )
