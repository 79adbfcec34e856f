"""Small archives in the real formats of torchvision's sets, on a local server."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

Server = tuple[str, Path]

RNG = np.random.default_rng(0)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Start a local server; yield its address and its folder."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    # shutdown() waits for one interval: 0.01 s
    threading.Thread(target=made.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}", folder
    finally:
        made.shutdown()
        made.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def serve_cifar10(server: Server, monkeypatch: pytest.MonkeyPatch, count: int = 6) -> np.ndarray:
    """Serve CIFAR-10's archive with few images per batch, and return the training images (N, H, W, C)."""
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
    """Return an array in the format of MNIST's files."""
    return gzip.compress(struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes())


FAMILY = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}


def serve_mnist(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Serve the four files of a set like MNIST with few images, and return their arrays."""
    address, folder = server
    arrays = {
        "train-images-idx3-ubyte.gz": RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8),
        "train-labels-idx1-ubyte.gz": (np.arange(12) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": RNG.integers(0, 256, (4, 28, 28)).astype(np.uint8),
        "t10k-labels-idx1-ubyte.gz": (np.arange(4) % 10).astype(np.uint8),
    }
    for file, array in arrays.items():
        (folder / file).write_bytes(idx(array))
    monkeypatch.setattr(FAMILY[name], "mirrors", [f"{address}/"])
    monkeypatch.setattr(FAMILY[name], "resources", [(file, md5((folder / file).read_bytes())) for file in arrays])
    return arrays
