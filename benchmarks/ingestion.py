"""Measure how fast a folder or archive is stored, compared with plain decoding and peers, and how fast it is read.

``python benchmarks/ingestion.py PATH`` prints Markdown: images per second, and the peak memory of a process. Each
measurement runs in a process of its own.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

READ = 2_000  # batches
NEEDED = {
    "ours": ("ddpm_kedro.datasets.image_store", "ddpm_kedro.pipelines.data_ingestion.nodes"),
    "datasets": ("datasets",),
    "pillow": ("PIL.Image",),
    "torchvision": ("torchvision.io",),
}
BATCH = 256


def ours(path: Path, workers: int) -> int:
    """List twice, as the two nodes do; decode and store training and holdout images."""
    from ddpm_kedro.datasets.image_store import ImageStoreDataset  # noqa: PLC0415
    from ddpm_kedro.parameters import DatasetParameters  # noqa: PLC0415
    from ddpm_kedro.pipelines.data_ingestion.nodes import download_images, prepare_images  # noqa: PLC0415

    kind = "folder" if path.is_dir() else "archive"
    manifest = download_images(
        DatasetParameters(source=kind, download_folder="", path=str(path), sha256=None, classes=None)
    )
    count = 0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for number, lazy in enumerate(prepare_images(manifest, images(workers))):
            dataset = ImageStoreDataset(filepath=f"{folder}/{number}")
            dataset.save(lazy)
            count += len(dataset.load())
    return count


def images(workers: int):
    """Return the default parameters."""
    from ddpm_kedro.parameters import ImagesParameters  # noqa: PLC0415

    return ImagesParameters(
        holdout_fraction=0.1, seed=0, size=None, channels=None, fit="crop", background=(255, 255, 255),
        max_pixels=50_000_000, max_rejected_fraction=0.1, workers=workers,
    )  # fmt: skip


def contents(path: Path) -> list[bytes]:
    """Read all files into memory."""
    from ddpm_kedro.ingestion.containers import open_reader  # noqa: PLC0415
    from ddpm_kedro.ingestion.image_files import read_file  # noqa: PLC0415
    from ddpm_kedro.ingestion.listing import list_files  # noqa: PLC0415

    listing, reader = list_files(path), open_reader(path)
    return [read_file(reader, listing, index) for index in range(len(listing))]


def pillow(files: list[bytes]) -> int:
    """Decode with Pillow."""
    from PIL import Image  # noqa: PLC0415

    for file in files:
        np.asarray(Image.open(BytesIO(file)))
    return len(files)


def torchvisions(files: list[bytes]) -> int:
    """Decode with torchvision."""
    import torch  # noqa: PLC0415
    from torchvision.io import decode_image  # noqa: PLC0415

    for file in files:
        decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8))
    return len(files)


def hugging_face(folder: Path, workers: int) -> int:
    """Build a table with the imagefolder of ``datasets``, and decode all images into arrays of one shape."""
    from datasets import Array3D, Features, load_dataset  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as cache:
        loaded = load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache, split="train", num_proc=workers)
        height, width = np.asarray(loaded[0]["image"]).shape[:2]
        features = Features({"pixels": Array3D((height, width, 3), "uint8")})
        made = loaded.map(
            lambda row: {"pixels": np.asarray(row["image"])},
            num_proc=workers, remove_columns=loaded.column_names, features=features,
        )  # fmt: skip
        return len(made)


def random_reads(count: int) -> tuple[int, float]:
    """Read random batches of a store of synthetic images, 32×32×3; return the images read, and the seconds."""
    from ddpm_kedro.datasets.image_store import ImageStoreDataset  # noqa: PLC0415
    from ddpm_kedro.ingestion.lazy_store import SHARD_BYTES, LazyImageStore  # noqa: PLC0415
    from ddpm_kedro.provenance import Provenance  # noqa: PLC0415

    each = SHARD_BYTES // 3072
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset = ImageStoreDataset(filepath=f"{folder}/store")
        shards = [SyntheticShard(start, min(each, count - start)) for start in range(0, count, each)]
        dataset.save(LazyImageStore(Provenance({}, {}), (), lambda: shards, 2))
        store, rng = dataset.load(), np.random.default_rng(0)
        start = time.perf_counter()
        for _ in range(READ):
            store.images[rng.integers(0, count, BATCH)]
        return READ * BATCH, time.perf_counter() - start


class SyntheticShard(NamedTuple):
    """Images of noise."""

    start: int
    size: int

    def decode(self):
        """Return the images as a shard."""
        from ddpm_kedro.ingestion.lazy_store import Shard  # noqa: PLC0415

        pixels = np.random.default_rng(self.start).integers(0, 256, (self.size, 32, 32, 3), dtype=np.uint8)
        return Shard(pixels, np.full(self.size, -1))


def in_processes(decode: Callable[[list[bytes]], int], files: list[bytes], workers: int) -> int:
    """Decode the files in several processes."""
    with ProcessPoolExecutor(workers) as pool:
        return sum(pool.map(decode, [files[worker::workers] for worker in range(workers)]))


def measured(what: str, path: Path, workers: int) -> dict[str, float]:
    """Measure once, in a process of its own."""
    files = contents(path) if what in {"pillow", "torchvision"} else []
    for module in NEEDED.get(what, ()):  # imports are not measured
        import_module(module)
    seconds = None
    start = time.perf_counter()
    if what == "ours":
        count = ours(path, workers)
    elif what == "datasets":
        count = hugging_face(path, workers)
    elif what == "reads":
        count, seconds = random_reads(1_000_000)
    else:
        decode = {"pillow": pillow, "torchvision": torchvisions}[what]
        count = decode(files) if workers == 1 else in_processes(decode, files, workers)
    seconds = seconds or time.perf_counter() - start
    usage = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"images": count, "seconds": seconds, "mebibytes": usage[0], "mebibytes_of_workers": usage[1]}


def main(words: list[str]) -> None:
    """Measure all, in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a folder or an archive of images")
    parser.add_argument("--only", help="one measurement, as JSON, such as ours,2")
    parser.add_argument("--folder", type=Path, help="the same images in a folder, for datasets' imagefolder")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(words)
    if given.only:
        what, workers = given.only.split(",")
        print(json.dumps(measured(what, given.path, int(workers))))
        return
    figures = ["ours,0", "ours,2", "pillow,1", "pillow,2", "torchvision,1", "reads,1"]
    figures += ["datasets,2"] if given.folder else []
    found: dict[str, list[dict[str, float]]] = {figure: [] for figure in figures}
    for _ in range(given.rounds):
        for figure, rows in found.items():
            where = str(given.folder if figure.startswith("datasets") else given.path)
            command = [sys.executable, __file__, where, "--only", figure]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print("| method, processes | images | images/s | MiB of the process | MiB of its largest worker |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for figure, rows in found.items():
        row = sorted(rows, key=lambda row: row["seconds"])[len(rows) // 2]
        print(
            f"| {figure.replace(',', ', ')} | {row['images']:,} | {row['images'] / row['seconds']:,.0f} "
            f"| {row['mebibytes']:.0f} | {row['mebibytes_of_workers']:.0f} |"
        )
    print(f"\n{date.today()}, {platform.processor() or platform.machine()}, medians of {given.rounds} rounds.")


if __name__ == "__main__":
    main(sys.argv[1:])
