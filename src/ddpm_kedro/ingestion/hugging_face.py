"""Datasets in the format of Hugging Face's ``datasets``, from its hub or from this machine."""

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ddpm_kedro.errors import MissingSourceError, UserError
from ddpm_kedro.ingestion.collection import (
    ImageCollection,
    ImageFormat,
    Inspection,
    LabelledImage,
    Probe,
    RejectedImageError,
)
from ddpm_kedro.ingestion.decoding import decode, inspect, probe
from ddpm_kedro.ingestion.probing import probe_source
from ddpm_kedro.ingestion.source import Manifest, Source, choose_class_names, fetch_path, refuse_checksum
from ddpm_kedro.parameters import DatasetParameters

logger = logging.getLogger(__name__)
TRAINING, HOLDOUT = "train", ("test", "validation")
"""Names of splits. The first split of HOLDOUT that exists is the holdout, unless its labels are secret."""


@dataclass(frozen=True)
class HuggingFaceImages(ImageCollection):
    """Images of one split of a dataset."""

    path: str
    cache: str
    split: str
    classes: bool = True

    @property
    def class_names(self) -> list[str]:  # type: ignore[override]  # noqa: D102
        return find_columns(self.path, self.cache, self.split)[2]

    def __len__(self) -> int:
        return len(self._opened[0])

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.split} {index}"

    def probe(self, index: int) -> Probe:  # noqa: D102
        rows, image, _ = self._opened
        return probe(_content(rows[index][image]))

    def inspect(self, index: int) -> Inspection:  # noqa: D102
        rows, image, _ = self._opened
        return inspect(_content(rows[index][image]))

    def read(self, index: int, target: ImageFormat) -> LabelledImage:  # noqa: D102
        rows, image, label = self._opened
        row, number = rows[index], -1
        if label is not None and self.classes:
            number = row[label]
            if number is None or number < 0:
                raise RejectedImageError("it has no class")
        return decode(_content(row[image]), target, number)

    @cached_property
    def _opened(self) -> tuple[Any, str, str | None]:
        return open_split(self.path, self.cache, self.split)


class HuggingFaceSource(Source):
    """A dataset of the hub, or in its format on this machine."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Load the dataset; one of the hub is downloaded."""
        path = str(fetch_path(dataset, "a name of the hub, a folder or a .parquet file", is_parquet))
        if not Path(path).is_file():
            refuse_checksum(dataset)
        cache = str(Path(dataset.download_folder) / dataset.source)
        training, holdout = choose_splits(path, cache)
        splits = load_splits(path, cache)
        image, label, names = find_columns(path, cache, training)
        unused = [name for name in splits[training].features if name not in {image, label}]
        if label is None and unused:
            logger.warning("%s has no column of classes (ClassLabel); not used: %s.", path, ", ".join(unused))
        return probe_source(HuggingFaceImages(path, cache, training)) | {
            "folder": path,
            "cache": cache,
            "splits": [training, holdout],
            "class_names": choose_class_names(dataset, names, f"{path} has no column of classes"),
            "sha256": {name: str(split._fingerprint) for name, split in splits.items()},  # equal for equal content
        }

    def open(self, manifest: Manifest) -> tuple[HuggingFaceImages, HuggingFaceImages | None]:
        """Open the training split, and the test or validation split if there is one."""
        place, classes = (manifest["folder"], manifest["cache"]), bool(manifest["class_names"])
        training, holdout = manifest["splits"]
        images = HuggingFaceImages(*place, training, classes)
        return images, HuggingFaceImages(*place, holdout, classes) if holdout else None


def is_parquet(path: Path) -> bool:
    """Return whether a file is a .parquet, by its content."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


@lru_cache(maxsize=1)
def load_splits(path: str, cache: str) -> dict[str, Any]:
    """Return the splits of a dataset by name; a dataset of the hub is downloaded to the folder ``cache``.

    The path is a name of the hub, a folder that ``save_to_disk`` or the hub wrote, or a ``.parquet`` file.

    Raises:
        UserError: if ``datasets`` is not installed, or the dataset cannot be loaded.
    """
    try:
        import datasets  # noqa: PLC0415  an extra, and takes a second
    except ImportError as error:
        raise UserError(
            "dataset.source=huggingface needs the package datasets: pip install 'ddpm-kedro[huggingface]'."
        ) from error
    local = Path(path)
    try:
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(path)
        elif local.is_file():
            loaded = datasets.load_dataset("parquet", data_files=path, cache_dir=cache)
        else:
            loaded = datasets.load_dataset(path, cache_dir=cache)
    except Exception as error:  # its readers, and the hub's client, raise errors of many libraries
        raise MissingSourceError(f"dataset.path = {path} could not be loaded: {_first_line(error)}") from error
    return dict(loaded) if isinstance(loaded, dict) else {TRAINING: loaded}


def choose_splits(path: str, cache: str) -> tuple[str, str | None]:
    """Return the names of the training split and, if there is one, of the holdout split."""
    splits = load_splits(path, cache)
    training = TRAINING if TRAINING in splits else next(iter(splits))
    _, label, _ = find_columns(path, cache, training)
    holdout = (name for name in HOLDOUT if name in splits and name != training)
    return training, next((name for name in holdout if label is None or _has_labels(splits[name], label)), None)


def _has_labels(split: Any, label: str) -> bool:
    """Return whether a split has labels: test splits often keep them secret, as -1."""
    return label in split.features and any(number is not None and number >= 0 for number in split[label])


def find_columns(path: str, cache: str, split: str) -> tuple[str, str | None, list[str]]:
    """Return the column of images, the column of labels if there is one, and the class names.

    Raises:
        UserError: if there is no column of images.
    """
    import datasets  # noqa: PLC0415

    features = load_splits(path, cache)[split].features
    image = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise UserError(f"dataset.path = {path} has no column of images, only {', '.join(features)}.")
    label = next((name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    return image, label, [] if label is None else list(features[label].names)


@lru_cache(maxsize=2)
def open_split(path: str, cache: str, split: str) -> tuple[Any, str, str | None]:
    """Return the rows of a split, whose images are not decoded, and the columns of images and labels."""
    import datasets  # noqa: PLC0415

    image, label, _ = find_columns(path, cache, split)
    rows = load_splits(path, cache)[split].select_columns([image, *([label] if label else [])])
    return rows.cast_column(image, datasets.Image(decode=False)), image, label


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _content(cell: dict[str, Any] | None) -> bytes:
    """Return the bytes of an image, which are in the dataset or in a file beside it."""
    if cell is None:
        raise RejectedImageError("the file is empty")
    if cell["bytes"] is not None:
        content: bytes = cell["bytes"]
        return content
    try:
        return Path(cell["path"]).read_bytes()
    except OSError:
        raise RejectedImageError("it cannot be read") from None
