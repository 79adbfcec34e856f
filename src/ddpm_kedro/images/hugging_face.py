"""Datasets in the format of Hugging Face's ``datasets``, from its hub or from this machine."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images.decoding import Look, RejectedImageError, Wanted, decode, look, without_warnings
from ddpm_kedro.images.store import Shard
from ddpm_kedro.parameters import UserError

LOOKED_AT = 256  # pictures, for the choice of size and channels
TRAINING, HOLDOUT = "train", ("test", "validation")
"""Splits: the first of the latter that is there is the hold-out."""


@lru_cache(maxsize=1)
def splits(path: str, cache: str) -> dict[str, Any]:
    """The splits of a dataset by name; downloaded to ``cache`` where it is one of the hub.

    Args:
        path: a name of the hub, a folder that ``save_to_disk`` or the hub left, or a ``.parquet`` file.

    Raises:
        UserError: where ``datasets`` is not installed, or there is no such dataset.
    """
    try:
        import datasets  # noqa: PLC0415  an extra, and takes a second
    except ImportError as error:
        raise UserError(
            "dataset.source=huggingface needs the package datasets: pip install 'ddpm-kedro[huggingface]'."
        ) from error
    here = Path(path)
    try:
        if (here / "state.json").is_file() or (here / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(path)
        elif here.suffix == ".parquet":
            found = datasets.load_dataset("parquet", data_files=path, cache_dir=cache)
        else:
            found = datasets.load_dataset(path, cache_dir=cache)
    except Exception as error:  # its readers, and those of the hub, raise whatever their libraries do
        raise UserError(f"dataset.path = {path} could not be loaded: {_first_line(error)}") from error
    return dict(found) if isinstance(found, dict) else {TRAINING: found}


def parts(path: str, cache: str) -> tuple[str, str | None]:
    """The names of the split to train from, and of the hold-out, if there is one."""
    found = splits(path, cache)
    training = TRAINING if TRAINING in found else next(iter(found))
    return training, next((name for name in HOLDOUT if name in found and name != training), None)


def columns(path: str, cache: str, split: str) -> tuple[str, str | None, list[str]]:
    """The column of pictures, that of classes, and their names.

    Raises:
        UserError: where there is no column of pictures.
    """
    import datasets  # noqa: PLC0415

    features = splits(path, cache)[split].features
    image = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise UserError(f"dataset.path = {path} has no column of images, only {', '.join(features)}.")
    label = next((name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    return image, label, [] if label is None else list(features[label].names)


def fingerprints(path: str, cache: str) -> dict[str, str]:
    """Of every split, by ``datasets``: equal content, equal name."""
    return {name: str(split._fingerprint) for name, split in splits(path, cache).items()}


@lru_cache(maxsize=2)
def opened(path: str, cache: str, split: str) -> tuple[Any, str, str | None]:
    """A split whose pictures are not decoded, and its columns."""
    import datasets  # noqa: PLC0415

    image, label, _ = columns(path, cache, split)
    kept = splits(path, cache)[split].select_columns([image, *([label] if label else [])])
    return kept.cast_column(image, datasets.Image(decode=False)), image, label


def looks(path: str, cache: str, split: str) -> list[list[int]]:
    """Height, width, channels and how often, of some pictures spread over all; most frequent first."""
    data, image, _ = opened(path, cache, split)
    seen = Counter[Look]()
    with without_warnings():
        for row in np.linspace(0, len(data) - 1, min(LOOKED_AT, len(data))).astype(int):
            with suppress(RejectedImageError):  # told when all are read
                seen[look(_content(data[int(row)][image]))] += 1
    return [[each.height, each.width, each.channels, count] for each, count in seen.most_common()]


def shards(
    path: str, cache: str, split: str, rows: NDArray[np.int64], wanted: Wanted, each: int
) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these pictures; each can be made in another process."""
    for start in range(0, len(rows), each):
        yield partial(make_shard, path, cache, split, rows[start : start + each], wanted)


@without_warnings()
def make_shard(path: str, cache: str, split: str, rows: NDArray[np.int64], wanted: Wanted) -> Shard:
    """Decode them."""
    data, image, label = opened(path, cache, split)
    images = np.empty((len(rows), wanted.height, wanted.width, wanted.channels), dtype=np.uint8)
    labels, names, rejected = list[int](), list[str](), list[tuple[str, str]]()
    for row in rows:
        found, name = data[int(row)], f"{split} {row}"
        number = -1 if label is None else found[label]
        try:
            if number is None or (label is not None and number < 0):
                raise RejectedImageError("it has no class")
            images[len(names)] = decode(_content(found[image]), wanted)
        except RejectedImageError as why:
            rejected.append((name, str(why)))
        else:
            labels.append(number)
            names.append(name)
    return Shard(images[: len(names)], np.array(labels, dtype=np.int64), tuple(names), tuple(rejected))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _content(cell: dict[str, Any] | None) -> bytes:
    """The bytes of a picture, which lie in the dataset, or in a file beside it."""
    if cell is None:
        raise RejectedImageError("the file is empty")
    if cell["bytes"] is not None:
        content: bytes = cell["bytes"]
        return content
    try:
        return Path(cell["path"]).read_bytes()
    except OSError:
        raise RejectedImageError("it cannot be read") from None
