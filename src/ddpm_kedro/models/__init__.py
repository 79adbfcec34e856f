"""The network, and the network with all that is needed to use it."""

from ddpm_kedro.models.trained import TrainedModel
from ddpm_kedro.models.unet import UNet

__all__ = ["TrainedModel", "UNet"]
