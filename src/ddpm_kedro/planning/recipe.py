"""The learning rate and its warm-up for a network, a batch and a length."""

from ddpm_kedro.parameters import ModelParameters

LR, WIDTH, SLOPE = 3e-3, 16, -0.636
"""The learning rate of the digits at width 16, and 8e-4 at width 128 (docs/training.md): a power of the width."""
WARMUP_SHARE, MOST_WARMUP_STEPS = 0.08, 5_000  # of the length, as for the digits; as in Ho et al. (2020)


def recommended_learning_rate(model: ModelParameters, batch_size: int) -> float:
    """Return the peak learning rate of Adam for this network."""
    return float(LR * (model.width / WIDTH) ** SLOPE)


def recommended_warmup(batch_size: int, num_images: int) -> int:
    """Return the images over which the learning rate rises."""
    return int(min(WARMUP_SHARE * num_images, MOST_WARMUP_STEPS * batch_size))
