"""Datasets in the format of Hugging Face's ``datasets``, from its hub or from this machine."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.images.store import Shard
from ddpm_kedro.ingestion.decoding import RejectedImageError, Wanted, decode, look
from ddpm_kedro.ingestion.sharding import Labelled, decoded, in_shards, looks_of, wanted_of
from ddpm_kedro.ingestion.source import Manifest, Shards, brought, classes_of, rows_of, without_checksum
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters

logger = logging.getLogger(__name__)
TRAINING, HOLDOUT = "train", ("test", "validation")
"""Splits: the first of the latter that is there is the hold-out, unless its classes are secret."""


class HuggingFace:
    """A dataset in Hugging Face's format."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Load it, from the hub or from here."""
        path = str(brought(dataset, "a name of the hub, a folder or a .parquet file", is_parquet))
        if not Path(path).is_file():
            without_checksum(dataset)
        cache = str(Path(dataset.download_folder) / dataset.source)
        training, holdout = parts(path, cache)
        image, label, names = columns(path, cache, training)
        unused = [name for name in splits(path, cache)[training].features if name not in {image, label}]
        if label is None and unused:
            logger.warning("%s has no column of classes (ClassLabel); not used: %s.", path, ", ".join(unused))
        return {
            "folder": path,
            "cache": cache,
            "splits": [training, holdout],
            "class_names": classes_of(dataset, names, f"{path} has no column of classes"),
            "sha256": fingerprints(path, cache),
            "looks": looks(path, cache, training),
        }

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The dataset's own test or validation split is the hold-out where it has one, else a part of the images."""
        wanted = wanted_of(manifest["looks"], images)
        where, (training, holdout) = (manifest["folder"], manifest["cache"]), manifest["splits"]

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            split = holdout if index and holdout else training
            rows = rows_of(index, len(opened(*where, split)[0]), images, divided=bool(holdout))
            return shards(*where, split, rows, wanted, classes=bool(manifest["class_names"]))

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """What was loaded does not change: it is a copy."""


def is_parquet(path: Path) -> bool:
    """Whether a file is a .parquet, by its content."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


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
        elif here.is_file():
            found = datasets.load_dataset("parquet", data_files=path, cache_dir=cache)
        else:
            found = datasets.load_dataset(path, cache_dir=cache)
    except Exception as error:  # its readers, and those of the hub, raise whatever their libraries do
        raise MissingSourceError(f"dataset.path = {path} could not be loaded: {_first_line(error)}") from error
    return dict(found) if isinstance(found, dict) else {TRAINING: found}


def parts(path: str, cache: str) -> tuple[str, str | None]:
    """The names of the split to train from, and of the hold-out, if there is one."""
    found = splits(path, cache)
    training = TRAINING if TRAINING in found else next(iter(found))
    _, label, _ = columns(path, cache, training)
    holdout = (name for name in HOLDOUT if name in found and name != training)
    return training, next((name for name in holdout if label is None or _has_classes(found[name], label)), None)


def _has_classes(split: Any, label: str) -> bool:
    """Return whether a split has labels: test splits often keep them secret, as -1."""
    return label in split.features and any(number is not None and number >= 0 for number in split[label])


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
    """See :func:`looks_of`."""
    data, image, _ = opened(path, cache, split)
    return looks_of(len(data), lambda row: look(_content(data[row][image])))


def shards(
    path: str, cache: str, split: str, rows: NDArray[np.int64], wanted: Wanted, *, classes: bool
) -> Iterator[Callable[[], Shard]]:
    """What makes the shards of these pictures; each can be made in another process."""
    for some in in_shards(rows, wanted):
        yield partial(make_shard, path, cache, split, some, wanted, classes=classes)


def make_shard(path: str, cache: str, split: str, rows: NDArray[np.int64], wanted: Wanted, *, classes: bool) -> Shard:
    """Decode them."""
    data, image, label = opened(path, cache, split)

    def read(index: int) -> Labelled:
        found = data[int(rows[index])]
        number = found[label] if label is not None and classes else -1
        if number is None or (classes and number < 0):
            raise RejectedImageError("it has no class")
        return decode(_content(found[image]), wanted), number

    return decoded(len(rows), wanted, lambda index: f"{split} {rows[index]}", read)


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
