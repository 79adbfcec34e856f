"""The training images nearest to each sample, which show whether samples are new or copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_kedro.images.store import Images

OTHERS = 9  # the next nearest training images, which the nearest one is compared with
QUANTILE = 0.01
SUSPICIOUS = 5 * QUANTILE
LEAST = {"samples": 20, "holdout images": 100, "training images": OTHERS + 1}  # images needed for a verdict
CHUNK = 4096
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


def nearest_images(images: Images, training: Images, device: torch.device | str = "cpu") -> Nearest:
    """Find the training images (M, H, W, C) nearest to images (N, H, W, C), uint8, by their pixels, on a device."""
    # A GPU's TF32 products are too coarse for the small differences between similar images.
    products = "use_mm_for_euclid_dist_if_necessary" if torch.device(device).type == "cpu" else EXACT
    queries = torch.from_numpy(np.array(images).reshape(len(images), -1)).to(device).float()
    best = torch.full((len(images), 0), torch.inf, device=device)
    indices = torch.zeros((len(images), 0), dtype=torch.int64, device=device)
    for first in range(0, len(training), CHUNK):
        pixels = np.array(training[first : first + CHUNK]).reshape(-1, queries.shape[1])
        part = torch.from_numpy(pixels).to(device).float()
        distances = torch.cdist(queries, part, compute_mode=products)
        best = torch.cat([best, distances], dim=1)
        indices = torch.cat([indices, (first + torch.arange(len(part), device=device)).expand(len(images), -1)], dim=1)
        best, order = best.topk(min(OTHERS + 1, best.shape[1]), dim=1, largest=False)
        indices = indices.gather(1, order)
    distances = best.cpu() / queries.shape[1] ** 0.5
    others = distances[:, 1:].mean(1) if distances.shape[1] > 1 else torch.ones(len(images))
    return Nearest(indices[:, 0].cpu(), distances[:, 0], distances[:, 0] / others.clamp(min=1e-6))


def copying(samples: Nearest, holdout: Nearest, training: int) -> dict[str, Any]:
    """Decide whether samples are copies, by the ratios of the most similar 1 % of the holdout images.

    Ratios are compared instead of distances because plain or blurred images are near many training images, but a copy
    is near only one. ``training`` is the number of training images. With fewer images than in ``LEAST``, the verdict
    would be chance.
    """
    threshold = float(holdout.ratios.quantile(QUANTILE))
    share = float((samples.ratios < threshold).float().mean())
    verdict = "copies training images" if share > SUSPICIOUS else "no sign of copying"
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
