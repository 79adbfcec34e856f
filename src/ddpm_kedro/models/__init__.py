"""The network, the network with all that is needed to use it, and diffusers' format."""

from ddpm_kedro.models.diffusers_format import DiffusersModel, from_diffusers, to_diffusers, unsupported_reason
from ddpm_kedro.models.record import RunRecord
from ddpm_kedro.models.trained import TrainedModel, weights_fingerprint
from ddpm_kedro.models.unet import UNet

__all__ = [
    "DiffusersModel",
    "RunRecord",
    "TrainedModel",
    "UNet",
    "from_diffusers",
    "to_diffusers",
    "unsupported_reason",
    "weights_fingerprint",
]
