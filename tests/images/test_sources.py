"""Sources: the digits in the package, and torchvision's sets from a server on this machine, in their true formats."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from ddpm_kedro.images.sources import SOURCES, checksums, source_named
from ddpm_kedro.parameters import UserError

RNG = np.random.default_rng(0)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on this machine: its address and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    made = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}", folder
    made.shutdown()
    made.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def serve_cifar10(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, count: int = 6) -> np.ndarray:
    """CIFAR-10's archive with few images a batch; gives the training images (N, H, W, C)."""
    address, folder = server
    images = RNG.integers(0, 256, (count * 6, 32, 32, 3)).astype(np.uint8)
    files = {}
    for index, name in enumerate([*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"]):
        part = images[index * count : (index + 1) * count]
        labels = [i % 10 for i in range(count)]
        files[name] = pickle.dumps({"data": part.transpose(0, 3, 1, 2).reshape(count, -1), "labels": labels})
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files["batches.meta"] = pickle.dumps({"label_names": names})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (folder / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    cifar = datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", f"{address}/cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(cifar, "train_list", [[f"data_batch_{i}", md5(files[f"data_batch_{i}"])] for i in range(1, 6)])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5(files["batches.meta"])})
    return images[: 5 * count]


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    return gzip.compress(struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes())


def test_the_digits_of_the_package() -> None:
    source = source_named("mnist5k")
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
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = serve_cifar10(server, monkeypatch)
    source = source_named("cifar10")
    folder, names = source.download(tmp_path / "raw")
    train, test = source.read(folder)
    assert names[3] == "cat"
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5] * 5
    assert test is not None
    assert test.images.shape == (6, 32, 32, 3)
    (server[1] / "cifar-10-python.tar.gz").unlink()  # what is there is not downloaded again
    assert source.download(tmp_path / "raw")[0] == folder


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_family_of_mnist(
    name: str, server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    dataset = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    arrays = {
        "train-images-idx3-ubyte.gz": RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8),
        "train-labels-idx1-ubyte.gz": (np.arange(12) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": RNG.integers(0, 256, (4, 28, 28)).astype(np.uint8),
        "t10k-labels-idx1-ubyte.gz": (np.arange(4) % 10).astype(np.uint8),
    }
    for file, array in arrays.items():
        (folder / file).write_bytes(idx(array))
    monkeypatch.setattr(dataset, "mirrors", [f"{address}/"])
    monkeypatch.setattr(dataset, "resources", [(file, md5((folder / file).read_bytes())) for file in arrays])
    source = source_named(name)
    where, names = source.download(tmp_path / "raw")
    train, test = source.read(where)
    assert len(names) == 10
    assert np.array_equal(train.images[..., 0], arrays["train-images-idx3-ubyte.gz"])
    assert train.labels.tolist() == (np.arange(12) % 10).tolist()
    assert test is not None
    assert len(test.images) == 4


def test_svhn(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    images = RNG.integers(0, 256, (32, 32, 3, 5)).astype(np.uint8)
    split_list = {}
    for split in ("train", "test"):
        file = f"{split}_32x32.mat"
        scipy.io.savemat(folder / file, {"X": images, "y": np.array([[10], [1], [2], [3], [10]])})
        split_list[split] = [f"{address}/{file}", file, md5((folder / file).read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    source = source_named("svhn")
    train, _ = source.read(source.download(tmp_path / "raw")[0])
    assert np.array_equal(train.images, images.transpose(3, 0, 1, 2))
    assert train.labels.tolist() == [0, 1, 2, 3, 0]


def test_a_wrong_checksum_is_an_error(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_cifar10(server, monkeypatch)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match=r"could not be downloaded.*raw by hand"):
        source_named("cifar10").download(tmp_path / "raw")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "mnist5k"])
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
        source_named(name).download(tmp_path / "raw")


def test_an_unknown_source_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"Unknown dataset.source 'cifar-10'. Did you mean 'cifar10'"):
        source_named("cifar-10")
