"""Make the folder that travels with the project: ``python -m benchmarks.gpu.kit``, which ``make gpu-kit`` calls.

It has wheels of the packages that the parts import, for the Python of the machine with the GPU, and a subset of images,
so that this machine may be offline. This module needs torchvision, Pillow and pip.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gpu import environment
from PIL import Image

COUNT = 20_000  # images
MOST_BYTES = 60 * 2**20
"""Of the whole kit, since uploads are often limited to a little more."""
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)
"""Minor versions of glibc 2 in the tags of wheels: pip accepts only the versions that are named."""


def download_wheels(folder: Path, python: str, machine: str) -> None:
    """Download the wheels of requirements.txt in the versions of constraints.txt.

    Raises:
        NotReadyError: if pip cannot; the message is pip's own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]
    target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    target += [word for name in platforms for word in ("--platform", name)]
    files = ["-c", str(environment.ROOT / "constraints.txt"), "-r", str(environment.REQUIREMENTS)]
    command = [*environment.PIP, "download", "--quiet", "--no-deps", "--dest", str(folder), *target, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
        raise environment.NotReadyError(f"The wheels for Python {python} on {machine} were not found. {errors[-1]}")


def read_images(source: Path | None, scratch: Path) -> Any:
    """Return labelled images like a torchvision dataset: of a folder or an archive with one folder per class.

    Args:
        source: folder or archive; None downloads CIFAR-10.
        scratch: an empty folder for unpacked or downloaded files.

    Raises:
        NotReadyError: if the source is missing, or has no folders of images.
    """
    from torchvision import datasets  # noqa: PLC0415  takes seconds, which a mistyped option need not wait for

    if source is None:
        return datasets.CIFAR10(str(scratch), download=True)
    if not source.exists():
        raise environment.NotReadyError(f"There is no {source}: IMAGES is a folder or an archive of images.")
    folder = source
    if source.is_file():
        folder = scratch
        try:
            shutil.unpack_archive(source, folder, **({"filter": "data"} if ".tar" in source.suffixes else {}))
        except (shutil.ReadError, OSError) as error:
            raise environment.NotReadyError(f"{source} cannot be unpacked: {error}") from error
    while len(inside := [path for path in folder.iterdir() if path.is_dir()]) == 1:
        folder = inside[0]
    try:
        return datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise environment.NotReadyError(f"{source} has no folders of images, one per class: {error}") from error


def subset(images: Any, count: int) -> Iterator[tuple[Image.Image, str]]:
    """Yield up to ``count`` images, equally many of each class if possible, with their class names."""
    labels = np.array(images.targets)
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)  # of each image in its class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    for index in np.argsort(rank, kind="stable")[:count]:
        image, label = images[int(index)]
        yield image, images.classes[label]


def write_pack(file: Path, images: Iterable[tuple[Image.Image, str]]) -> int:
    """Write images to ``<class>/<number>.webp`` in an uncompressed zip, without loss; return their number."""
    count = 0
    with zipfile.ZipFile(file, "w") as pack, ThreadPoolExecutor() as pool:
        for name, encoded in pool.map(_encode, images):
            count += 1
            pack.writestr(f"{name}/{count:06d}.webp", encoded)
    return count


def _encode(labelled: tuple[Image.Image, str]) -> tuple[str, bytes]:
    image, name = labelled
    encoded = BytesIO()
    image.convert("RGB").save(encoded, "WEBP", lossless=True, quality=80, method=4)
    return name, encoded.getvalue()


def main(words: list[str]) -> int:
    """Make the kit; return 2 if it cannot be made."""
    parser = argparse.ArgumentParser(prog="make gpu-kit", description=__doc__.splitlines()[0])
    parser.add_argument("--python-version", default="", help="of the machine with the GPU; this one's by default")
    parser.add_argument("--machine", default=platform.machine(), help="its processor: x86_64 or aarch64")
    parser.add_argument("--images", default="", help="folder or archive, one folder per class; downloads CIFAR-10")
    parser.add_argument("--count", type=int, default=COUNT, help="images, at most")
    parser.add_argument("--kit", type=Path, default=environment.KIT)
    given = parser.parse_args(words)
    python = given.python_version or environment.python_version()
    given.kit.mkdir(parents=True, exist_ok=True)
    try:
        download_wheels(given.kit / environment.WHEELS, python, given.machine)
        made_for = {"python": python, "machine": given.machine}
        (given.kit / environment.MADE_FOR).write_text(json.dumps(made_for))
        source = Path(given.images).expanduser() if given.images else None
        with tempfile.TemporaryDirectory() as scratch:
            images = subset(read_images(source, Path(scratch)), given.count)
            count = write_pack(given.kit / environment.IMAGES, images)
        size = sum(path.stat().st_size for path in given.kit.rglob("*") if path.is_file())
        if size > MOST_BYTES:
            raise environment.NotReadyError(
                f"The kit takes {size / 2**20:.1f} MiB, more than {MOST_BYTES // 2**20}: give fewer images, --count."
            )
    except environment.NotReadyError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.kit}: wheels for Python {python} on {given.machine}, {count:,} images, {size / 2**20:.1f} MiB.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
