"""Networks and training steps of diffusers and lucidrains, as close to ours as their options allow."""

import contextlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.training.networks import Shape
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion as ClassGaussianDiffusion
from denoising_diffusion_pytorch.classifier_free_guidance import Unet as ClassUnet
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from ema_pytorch import EMA
from torch import Tensor, nn

from ddpm_kedro.hardware import Hardware
from ddpm_kedro.images.pixels import to_float
from ddpm_kedro.parameters import OptimizerParameters
from ddpm_kedro.training.optimizers import learning_rate

LABEL_DROPOUT = 0.1  # of class-conditional networks


def diffusers_network(shape: Shape) -> UNet2DModel:
    """Return diffusers' U-Net, with one more class for the empty label."""
    levels = range(len(shape.multipliers))
    attention = ["Attn" if level in shape.attention else "" for level in levels]
    return UNet2DModel(
        sample_size=shape.size + shape.padding,
        in_channels=shape.channels,
        out_channels=shape.channels,
        block_out_channels=tuple(shape.width * m for m in shape.multipliers),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in attention),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attention)),
        layers_per_block=shape.blocks,
        norm_num_groups=shape.groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=0.0,
        attention_head_dim=shape.head_channels,
        num_class_embeds=shape.classes + 1 if shape.classes else None,
    )


def lucidrains_network(shape: Shape, label_dropout: float = 0.1) -> nn.Module:
    """Return lucidrains' U-Net: always two blocks per level, and linear attention where there is no full attention."""
    if shape.classes:
        return ClassUnet(
            shape.width,
            num_classes=shape.classes,
            cond_drop_prob=label_dropout,
            dim_mults=shape.multipliers,
            channels=shape.channels,
        )
    full = tuple(level in shape.attention for level in range(len(shape.multipliers)))
    return Unet(shape.width, dim_mults=shape.multipliers, channels=shape.channels, full_attn=full)


class Peer:
    """Common parts of both peers: Adam, gradient clipping, and images padded to a size that the network accepts."""

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        optimizer: OptimizerParameters,
        hardware: Hardware,
        fused: bool | None = None,
    ) -> None:
        self.network, self.shape, self.p, self.hardware = network.to(hardware.device), shape, optimizer, hardware
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer.name]
        assert optimizer.betas is not None
        options = {"betas": optimizer.betas, "weight_decay": optimizer.weight_decay, "fused": fused}
        self.optimizer = kind(network.parameters(), lr=optimizer.lr, **options)

    def step(self, index: int, pixels: Tensor, labels: Tensor | None, num_images: int) -> Tensor:
        """Run a step; see :class:`Learner`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate((index + 1) * len(pixels), num_images, self.p)
        x = to_float(pixels, self.hardware.device).contiguous()
        pad = self.shape.padding
        loss = self.loss(F.pad(x, (0, pad, 0, pad), value=-1) if pad else x, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.p.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_ema()
        return loss.detach()

    def loss(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the loss of images (N, C, H, W) in [-1, 1]."""
        raise NotImplementedError

    def update_ema(self) -> None:
        """Update the EMA weights, if there are any."""

    def crop(self, x: Tensor) -> Tensor:
        """Crop and clamp images to the size and range of the training images."""
        return x[..., : self.shape.size, : self.shape.size].clamp(-1, 1)


class Diffusers(Peer):
    """A step of diffusers' ``train_unconditional.py``.

    Args:
        v: predict v with the cosine schedule, which the script does not offer, instead of noise with the linear one.
        ema: keep EMA weights, which the script does only with ``--use_ema``.
        channels_last: use our memory format; the script does not.
        fused: use the fused optimizer; the script uses torch's default.
        compile: mode of torch.compile; the script does not compile.
    """

    def __init__(
        self,
        shape: Shape,
        optimizer: OptimizerParameters,
        hardware: Hardware,
        *,
        v: bool = False,
        ema: bool = False,
        channels_last: bool = False,
        fused: bool | None = None,
        compile: str | None = None,
    ) -> None:
        network = diffusers_network(shape).train()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        super().__init__(network.to(memory_format=self.layout), shape, optimizer, hardware, fused)
        if compile is not None:
            self.network.compile(mode=compile)
        kind = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"} if v else {}
        self.scheduler = DDPMScheduler(1000, **kind)
        weights = self.network.parameters()
        self.ema = EMAModel(weights, 0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75) if ema else None

    def loss(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the squared error of noise or v."""
        x = x.contiguous(memory_format=self.layout)
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),), device=x.device)
        if labels is not None:
            labels = torch.where(torch.rand(len(x), device=x.device) < LABEL_DROPOUT, self.shape.classes, labels)
        noisy = self.scheduler.add_noise(x, noise, t)
        with self.hardware.autocast():
            output = self.network(noisy, t, labels).sample
        v = self.scheduler.config.prediction_type == "v_prediction"
        return F.mse_loss(output.float(), self.scheduler.get_velocity(x, noise, t) if v else noise)

    def update_ema(self) -> None:
        """Update the EMA weights, as with ``--use_ema``."""
        if self.ema is not None:
            self.ema.step(self.network.parameters())

    @torch.no_grad()
    def sample(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Sample with twenty steps of DPM-Solver++; thresholding clamps x_0 to [-1, 1], as usual for pixels."""
        if self.ema is not None:
            self.ema.copy_to(self.network.parameters())
        options = {"thresholding": True, "timestep_spacing": "trailing", "lambda_min_clipped": -5.1}
        scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler.config, **options)
        scheduler.set_timesteps(20)
        self.network.eval()
        side = self.shape.size + self.shape.padding
        x = torch.randn(count, self.shape.channels, side, side, device=self.hardware.device)
        for t in scheduler.timesteps:
            with self.hardware.autocast():
                output = self.predict(x, t, labels, guidance)
            x = scheduler.step(output.float(), t, x).prev_sample
        return self.crop(x)

    def predict(self, x: Tensor, t: Tensor, labels: Tensor | None, guidance: float) -> Tensor:
        """Predict with classifier-free guidance, which this pipeline of diffusers does not have."""
        output: Tensor = self.network(x, t, labels).sample
        if labels is None or guidance == 1:
            return output
        empty: Tensor = self.network(x, t, torch.full_like(labels, self.shape.classes)).sample
        return empty + guidance * (output - empty)


class Lucidrains(Peer):
    """A step of the ``Trainer`` of denoising-diffusion-pytorch, which updates the EMA weights every tenth step."""

    def __init__(self, shape: Shape, optimizer: OptimizerParameters, hardware: Hardware) -> None:
        super().__init__(lucidrains_network(shape, LABEL_DROPOUT), shape, optimizer, hardware)
        kind = ClassGaussianDiffusion if shape.classes else GaussianDiffusion
        options: dict[str, Any] = {"sampling_timesteps": 50, "objective": "pred_v", "ddim_sampling_eta": 0.0}
        diffusion = kind(self.network, image_size=shape.size + shape.padding, **options)
        self.diffusion = diffusion.to(hardware.device).train()
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)

    def loss(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Compute its own loss of v."""
        options = {} if labels is None else {"classes": labels}
        with self.hardware.autocast():
            loss: Tensor = self.diffusion((x + 1) / 2, **options)
            loss.item()  # as its loop does
        return loss

    def update_ema(self) -> None:
        """Update the EMA weights; it skips nine of ten steps itself."""
        self.ema.update()

    def sample(self, labels: Tensor | None, count: int, guidance: float) -> Tensor:
        """Sample with fifty steps of DDIM and EMA weights; its guidance is never exactly 1."""
        model = self.ema.ema_model.eval()
        with contextlib.redirect_stderr(io.StringIO()), self.hardware.autocast():  # stderr: its progress bar
            if labels is None:
                images = model.sample(batch_size=count)
            else:
                images = model.sample(labels, cond_scale=max(guidance, 1 + 1e-6))
        return self.crop(images.clone().float() * 2 - 1)
