"""The training images nearest to each sample, which show whether samples are new or copies."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_kedro.images.store import Images, ImageSubset

OTHERS = 9  # the next nearest training images, which the nearest one is compared with
QUANTILE = 0.01
SUSPICIOUS = 5 * QUANTILE
LEAST = {"samples": 20, "holdout images": 100, "training images": OTHERS + 1}  # images needed for a verdict
NO_COPIES = "no sign of copying"
NOISE = "no verdict on copying: the samples are far from real images, and noise copies nothing"
UNKNOWN = "no sign of copying, if the samples look like real images, which could not be judged"
CHUNK = 4096  # images compared at once, at most
CHUNK_BYTES = 2**26  # of their pixels as float32, at most
EXACT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images.

    Attributes:
        indices: indices of the nearest training images, (N,) int64.
        distances: root mean square differences of the pixels, (N,), in grey levels of 255.
        ratios: (N,), distance / mean distance of the nine next nearest images; near 0 for a copy.
    """

    indices: Tensor
    distances: Tensor
    ratios: Tensor


def nearest_images(
    images: Images | ImageSubset, training: Images | ImageSubset, device: torch.device | str = "cpu"
) -> Nearest:
    """Find the training images (M, H, W, C) nearest to images (N, H, W, C), uint8, by their pixels, on a device.

    Both are read in chunks: the memory does not depend on N and M.
    """
    pixels = math.prod(images.shape[1:])
    rows = max(1, min(CHUNK, CHUNK_BYTES // (4 * pixels)))
    parts = [_nearest(_pixels(images, first, rows, device), training, rows) for first in range(0, len(images), rows)]
    distances, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    distances = distances / pixels**0.5
    others = distances[:, 1:].mean(1) if distances.shape[1] > 1 else torch.ones(len(images))
    return Nearest(indices, distances[:, 0], distances[:, 0] / others.clamp(min=1e-6))


def _nearest(queries: Tensor, training: Images | ImageSubset, rows: int) -> tuple[Tensor, Tensor]:
    """Return distances (N, OTHERS + 1), in increasing order, and the index of the nearest image (N,), on the CPU."""
    device = queries.device
    # A GPU's TF32 products are too coarse for the small differences between similar images.
    products = "use_mm_for_euclid_dist_if_necessary" if device.type == "cpu" else EXACT
    best = torch.full((len(queries), 0), torch.inf, device=device)
    indices = torch.zeros((len(queries), 0), dtype=torch.int64, device=device)
    for first in range(0, len(training), rows):
        part = _pixels(training, first, rows, device)
        best = torch.cat([best, torch.cdist(queries, part, compute_mode=products)], dim=1)
        numbers = first + torch.arange(len(part), device=device)
        indices = torch.cat([indices, numbers.expand(len(queries), -1)], dim=1)
        best, order = best.topk(min(OTHERS + 1, best.shape[1]), dim=1, largest=False)
        indices = indices.gather(1, order)
    return best.cpu(), indices[:, 0].cpu()


def _pixels(images: Images | ImageSubset, first: int, rows: int, device: torch.device | str) -> Tensor:
    """Return the pixels of some images, (n, H·W·C) float32, on the device."""
    part = np.array(images[first : first + rows])  # a writable copy
    return torch.from_numpy(part.reshape(len(part), -1)).to(device).float()


def copying(samples: Nearest, holdout: Nearest, training: int, is_far: bool | None = False) -> dict[str, Any]:
    """Decide whether samples are copies, by the ratios of the most similar 1 % of the holdout images.

    Ratios are compared instead of distances because plain or blurred images are near many training images, but a copy
    is near only one. With fewer images than in ``LEAST``, the verdict would be chance.

    Args:
        training: number of training images.
        is_far: whether the samples are far from real images, as noise is, which copies nothing; None if unknown.
    """
    threshold = float(holdout.ratios.quantile(QUANTILE))
    share = float((samples.ratios < threshold).float().mean())
    verdict = "copies training images" if share > SUSPICIOUS else NO_COPIES
    if verdict == NO_COPIES and is_far is not False:
        verdict = NOISE if is_far else UNKNOWN
    counts = dict(zip(LEAST, (len(samples.ratios), len(holdout.ratios), training), strict=True))
    if few := [f"{least} {kind}, not {counts[kind]}" for kind, least in LEAST.items() if counts[kind] < least]:
        verdict = f"no verdict on copying, which needs at least {'; '.join(few)}"
    return {
        "share_nearer_than_holdout": share,
        "expected_share": QUANTILE,
        "median_distance": float(samples.distances.median()),
        "median_distance_of_holdout": float(holdout.distances.median()),
        "verdict": verdict,
    }
