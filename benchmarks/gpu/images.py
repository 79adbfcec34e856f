"""Images for the training part: read from the image pack, or random for a tiny run without a pack."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.splitting import stratified_holdout
from ddpm_kedro.provenance import Provenance

HELD_OUT = 0.15  # of every class
Pair = tuple[ImageStore, ImageStore]
"""Training images and holdout."""


def read_pack(file: Path) -> Pair:
    """Return the training images and the holdout of a pack."""
    with zipfile.ZipFile(file) as pack:
        names = sorted(pack.namelist())
        encoded = [pack.read(name) for name in names]
    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(_decode, encoded)))
    classes = sorted({name.split("/")[0] for name in names})
    labels = np.array([classes.index(name.split("/")[0]) for name in names])
    return split(images, labels, tuple(classes))


def _decode(encoded: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def split(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Pair:
    """Return training images and holdout of images (N, H, W, C) uint8 with labels (N,)."""
    parts = stratified_holdout(labels, len(images), HELD_OUT, seed=0)
    made_by = Provenance({}, {"images": "the kit"})
    training, holdout = (ImageStore(images[part], labels[part], classes, made_by) for part in parts)
    return training, holdout


def made_images(size: int, count: int = 400) -> Pair:
    """Return images of four classes that differ in colour, for a run that tries the kit without a pack."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % 4
    colours = np.array([[220, 40, 40], [40, 200, 40], [40, 40, 220], [200, 200, 40]])
    noise = rng.integers(-30, 31, (count, size, size, 3))
    images = (colours[labels][:, None, None, :] + noise).clip(0, 255).astype(np.uint8)
    return split(images, labels, ("red", "green", "blue", "yellow"))
