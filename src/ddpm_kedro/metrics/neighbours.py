"""The training images nearest to each sample: whether samples are new, or copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_kedro.images.store import Images

OTHERS = 9  # nearest training images that the nearest one is compared with
QUANTILE = 0.01
SUSPICIOUS = 5 * QUANTILE
CHUNK = 4096
EXACT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class Nearest:
    """For each image, its nearest training image.

    Attributes:
        indices: (N,) int64.
        distances: (N,) root mean square difference of pixels, in grey levels of 255.
        ratios: (N,) that distance over the mean distance of the next nine; near 0 for a copy.
    """

    indices: Tensor
    distances: Tensor
    ratios: Tensor


def nearest_images(images: Images, training: Images, device: torch.device | str = "cpu") -> Nearest:
    """Compare images (N, H, W, C) uint8 with training images (M, H, W, C) uint8, pixel by pixel, on this device."""
    # TF32 products of a GPU are too coarse for the small differences between near images.
    products = "use_mm_for_euclid_dist_if_necessary" if torch.device(device).type == "cpu" else EXACT
    wanted = torch.from_numpy(np.array(images).reshape(len(images), -1)).to(device).float()
    best = torch.full((len(images), 0), torch.inf, device=device)
    where = torch.zeros((len(images), 0), dtype=torch.int64, device=device)
    for first in range(0, len(training), CHUNK):
        pixels = np.array(training[first : first + CHUNK]).reshape(-1, wanted.shape[1])
        part = torch.from_numpy(pixels).to(device).float()
        distances = torch.cdist(wanted, part, compute_mode=products)
        best = torch.cat([best, distances], dim=1)
        where = torch.cat([where, (first + torch.arange(len(part), device=device)).expand(len(images), -1)], dim=1)
        best, order = best.topk(min(OTHERS + 1, best.shape[1]), dim=1, largest=False)
        where = where.gather(1, order)
    where, distances = where.cpu(), best.cpu() / wanted.shape[1] ** 0.5
    others = distances[:, 1:].mean(1) if distances.shape[1] > 1 else torch.ones(len(images))
    return Nearest(where[:, 0], distances[:, 0], distances[:, 0] / others.clamp(min=1e-6))


def copying(samples: Nearest, holdout: Nearest) -> dict[str, Any]:
    """Whether samples are copies: how many are nearer to one training image than any but 1 % of the hold-out.

    The ratio of the nearest distance to the next nine is compared, since plain or blurred images are near to many
    training images, but a copy to one.
    """
    threshold = float(holdout.ratios.quantile(QUANTILE))
    share = float((samples.ratios < threshold).float().mean())
    return {
        "share_nearer_than_holdout": share,
        "expected_share": QUANTILE,
        "median_distance": float(samples.distances.median()),
        "median_distance_of_holdout": float(holdout.distances.median()),
        "verdict": "copies training images" if share > SUSPICIOUS else "no sign of copying",
    }
