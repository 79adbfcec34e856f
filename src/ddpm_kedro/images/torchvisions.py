"""Sets of torchvision whose pictures have many sizes: decoded by torchvision, picture by picture."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.decoding import RejectedImageError, Wanted, as_array, fitted, with_channels
from ddpm_kedro.images.store import Shard
from ddpm_kedro.parameters import UserError

LOOKED_AT = 64  # pictures, for the choice of size
Options = tuple[tuple[str, Any], ...]


def bring(dataset: str, folder: Path, options: Options) -> Any:
    """The set of that name, downloaded where torchvision can, and opened.

    Raises:
        UserError: with torchvision's own words, where it cannot be downloaded or must be brought by hand.
    """
    kind, given = resolve_name(f"torchvision.datasets:{dataset}"), dict(options)
    if "download" in signature(kind).parameters:
        given["download"] = True
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return kind(str(folder), **given)
    except (OSError, RuntimeError, ValueError) as error:  # an URLError is an OSError
        raise UserError(f"{dataset} is not there: {' '.join(str(error).split())} Files go to {folder}.") from error


@lru_cache(maxsize=2)
def opened(dataset: str, folder: Path, options: Options) -> Any:
    """The set once it is there, opened once in a process."""
    return resolve_name(f"torchvision.datasets:{dataset}")(str(folder), **dict(options))


def class_names(data: Any) -> list[str]:
    """As torchvision has them; of several for one class, the first."""
    names = getattr(data, "classes", None) or getattr(data, "categories", None) or ()
    return [name if isinstance(name, str) else name[0] for name in names]


def looks(data: Any) -> list[list[int]]:
    """Height, width, channels and how often, of some pictures spread over all; most frequent first."""
    seen = Counter[tuple[int, int, int]]()
    for row in np.linspace(0, len(data) - 1, min(LOOKED_AT, len(data))).astype(int):
        with suppress(Exception):  # what cannot be read is told when all are
            image = data[int(row)][0]
            seen[image.height, image.width, 1 if image.mode in {"1", "L"} else 3] += 1
    return [[*look, count] for look, count in seen.most_common()]


def digest(folder: Path) -> str:
    """SHA-256 of the names and sizes of all files: their contents may be many gigabytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    listed = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def shards(
    dataset: str, folder: Path, options: Options, rows: NDArray[np.int64], wanted: Wanted, each: int
) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these pictures; each can be made in another process."""
    for start in range(0, len(rows), each):
        yield partial(make_shard, dataset, folder, options, rows[start : start + each], wanted)


def make_shard(dataset: str, folder: Path, options: Options, rows: NDArray[np.int64], wanted: Wanted) -> Shard:
    """Decode them."""
    data = opened(dataset, folder, options)
    images = np.empty((len(rows), wanted.height, wanted.width, wanted.channels), dtype=np.uint8)
    labels, names, rejected = list[int](), list[str](), list[tuple[str, str]]()
    for row in rows:
        name = f"{dataset} {row}"
        try:
            image, label = data[int(row)]
            images[len(names)] = as_array(fitted(with_channels(image, wanted), wanted))
        except RejectedImageError as why:
            rejected.append((name, str(why)))
        except MemoryError:
            raise
        except Exception:  # whatever Pillow and the many formats of these sets lead to
            rejected.append((name, "it is damaged"))
        else:
            labels.append(int(label))
            names.append(name)
    return Shard(images[: len(names)], np.array(labels, dtype=np.int64), tuple(names), tuple(rejected))
