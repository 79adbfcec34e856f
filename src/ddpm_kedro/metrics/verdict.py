"""The verdict: one sentence that says how close samples are to real images, by the rules in docs/evaluation.md."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_kedro.metrics.reliability import Reliability
from ddpm_kedro.metrics.scores import Score

FAR, CLOSE = 0.5, 0.1  # of the way from holdout images to clouds, by KID
SIMILAR, HALF = 0.8, 0.5  # of the precision or recall of holdout images
DEVIATIONS = 2  # of the clouds' KID, within which they count as real images
LEAST = 50  # samples and holdout images


@dataclass(frozen=True)
class Verdict:
    """A sentence, and whether the samples are far from real images; None if that cannot be judged."""

    text: str
    is_far: bool | None


def clouds(images: Tensor) -> Tensor:
    """Turn images (N, C, H, W) into clouds: random phases leave colours and spectrum, but no object.

    Samples of a network that has seen too few images look like that. The phases are the same for all images.
    """
    height, width = images.shape[-2:]
    noise = torch.randn(height, width, generator=torch.Generator().manual_seed(0))
    phases = torch.fft.fft2(noise)
    phases = (phases / phases.abs().clamp(min=1e-12)).to(images.device)
    phases[0, 0] = 1  # the mean stays
    changed: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * phases).real
    return changed.clamp(-1, 1)


def judge(scores: Sequence[Score], clouds_kid: tuple[float, float] | None, reliability: Reliability | None) -> Verdict:
    """Judge samples by KID, precision and recall, compared with holdout images and with clouds.

    Args:
        scores: see :func:`ddpm_kedro.metrics.scores.all_scores`.
        clouds_kid: KID of holdout images that :func:`clouds` has changed, and its deviation; None for too few images.
    """
    kid, precision, recall = (next(s for s in scores if s.name.startswith(n)) for n in ("KID", "precision", "recall"))
    if (reason := _unknown_reason(kid, clouds_kid, reliability)) is not None:
        return Verdict(f"cannot be judged: {reason}", None)
    assert kid.value is not None
    assert kid.holdout_value is not None
    assert clouds_kid is not None
    way = (kid.value - kid.holdout_value) / (clouds_kid[0] - kid.holdout_value)
    numbers = (
        f"KID {kid.value:.2g} (real images {kid.holdout_value:.2g}, clouds of their colours {clouds_kid[0]:.2g}), "
        f"precision {_beside_real(precision)}, recall {_beside_real(recall)}"
    )
    if way >= FAR or _share(precision) < HALF:
        return Verdict(f"far from real images: {numbers}", True)
    if way <= CLOSE and min(_share(precision), _share(recall)) >= SIMILAR:
        return Verdict(f"close to real images: {numbers}", False)
    return Verdict(f"between real images and clouds: {numbers}", False)


def _unknown_reason(kid: Score, clouds_kid: tuple[float, float] | None, reliability: Reliability | None) -> str | None:
    """Return why the samples cannot be judged; None if they can."""
    if reliability is not None and reliability.is_chance:
        return f"the feature extractor is at chance level ({reliability.value:.0%})"
    if kid.value is None or kid.holdout_value is None or clouds_kid is None:
        return kid.note
    if kid.holdout_n < LEAST:
        return f"too few: needs at least {LEAST} samples and as many holdout images, not {kid.holdout_n}"
    if clouds_kid[0] - kid.holdout_value <= DEVIATIONS * clouds_kid[1]:
        return "the features do not distinguish real images from clouds of the same colours"
    return None


def _share(score: Score) -> float:
    """Return a score of samples as a share of the score of as many holdout images; 1 if either is unknown."""
    if score.value_at_holdout_n is None or not score.holdout_value:
        return 1.0
    return score.value_at_holdout_n / score.holdout_value


def _beside_real(score: Score) -> str:
    value, real = score.value_at_holdout_n, score.holdout_value
    return "unknown" if value is None or real is None else f"{value:.2f} (real images {real:.2f})"
