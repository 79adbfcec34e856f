"""Small sets: the digits of the package, and torchvision's, in their own formats from a local server."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from ddpm_kedro.errors import UserError
from ddpm_kedro.ingestion.registry import SOURCES, find_source
from ddpm_kedro.ingestion.source import checksums
from ddpm_kedro.ingestion.torchvision_sets import TorchvisionArrays
from tests.archives import FAMILY, RNG, Server, md5, serve_cifar10, serve_mnist
from tests.conftest import changed
from tests.pipelines.test_nodes import DATASET


def test_mnist5k_is_read_from_the_package() -> None:
    source = find_source("mnist5k")
    folder, names = source.download(Path("unused"))
    train, test = source.read(folder)
    assert names == tuple("0123456789")
    assert test is None
    assert train.images.shape == (5000, 28, 28, 1)
    assert train.images.dtype == np.uint8
    assert np.bincount(train.labels).tolist() == [500] * 10
    assert train.images.max() == 255
    assert (train.images[train.labels == 1].mean() < train.images[train.labels == 0].mean()) is np.True_
    assert list(checksums(source.files(folder), folder)) == ["mnist_5k.csv.gz"]


def test_cifar10_is_downloaded_checked_and_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = serve_cifar10(server, monkeypatch)
    source = find_source("cifar10")
    folder, names = source.download(tmp_path / "raw")
    train, test = source.read(folder)
    assert names[3] == "cat"
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5] * 5
    assert test is not None
    assert test.images.shape == (6, 32, 32, 3)
    (server[1] / "cifar-10-python.tar.gz").unlink()  # what is there is not downloaded again
    assert source.download(tmp_path / "raw")[0] == folder


@pytest.mark.parametrize("name", FAMILY)
def test_mnist_and_its_relatives_are_downloaded_and_read(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = serve_mnist(name, server, monkeypatch)
    source = find_source(name)
    where, names = source.download(tmp_path / "raw")
    train, test = source.read(where)
    assert len(names) == 10
    assert np.array_equal(train.images[..., 0], arrays["train-images-idx3-ubyte.gz"])
    assert train.labels.tolist() == (np.arange(12) % 10).tolist()
    assert test is not None
    assert len(test.images) == 4


def test_svhn_is_downloaded_and_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    images = RNG.integers(0, 256, (32, 32, 3, 5)).astype(np.uint8)
    split_list = {}
    for split in ("train", "test"):
        file = f"{split}_32x32.mat"
        scipy.io.savemat(folder / file, {"X": images, "y": np.array([[10], [1], [2], [3], [10]])})
        split_list[split] = [f"{address}/{file}", file, md5((folder / file).read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    source = find_source("svhn")
    train, _ = source.read(source.download(tmp_path / "raw")[0])
    assert np.array_equal(train.images, images.transpose(3, 0, 1, 2))
    assert train.labels.tolist() == [0, 1, 2, 3, 0]


def test_a_wrong_checksum_is_an_error(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_cifar10(server, monkeypatch)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match=r"could not be downloaded.*raw by hand"):
        find_source("cifar10").download(tmp_path / "raw")


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if isinstance(source, TorchvisionArrays)])
def test_no_network_is_an_error_that_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = "http://127.0.0.1:9"
    dataset = getattr(datasets, SOURCES[name].dataset)
    for attribute, value in {
        "url": f"{closed}/x.tar.gz",
        "mirrors": [f"{closed}/"],
        "split_list": {split: [f"{closed}/x.mat", "x.mat", "0"] for split in ("train", "test")},
    }.items():
        if hasattr(dataset, attribute):
            monkeypatch.setattr(dataset, attribute, value)
    with pytest.raises(UserError, match=r"could not be downloaded: .*Check the network.*mnist5k needs no network"):
        find_source(name).download(tmp_path / "raw")


def test_an_unknown_source_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"Unknown dataset.source 'cifar-10'. Did you mean 'cifar10'"):
        find_source("cifar-10")


@pytest.mark.parametrize(("source", "path"), [("mnist5k", None), ("dtd", None), ("folder", "."), ("huggingface", "x")])
def test_a_checksum_that_would_not_be_compared_is_refused(source: str, path: str | None, tmp_path: Path) -> None:
    where = str(tmp_path) if path == "." else path
    dataset = changed(DATASET, source=source, download_folder=str(tmp_path), path=where, sha256="00" * 32)
    with pytest.raises(UserError, match=r"dataset.sha256 is the checksum of one file.*leave it at null"):
        find_source(source).fetch(dataset)
