"""The groups that shape a training: images, network, process, optimizer, loop."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ddpm_kedro.parameters.base import Device, Fraction, Group, Precision, Seed, Text, TextPath

Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=8)]


class DatasetParameters(Group):
    """Where the images come from."""

    source: Text
    """A name in the table of ``ddpm_kedro.ingestion.registry``: mnist5k, cifar10, …"""
    download_folder: TextPath
    """Folder on this machine for downloaded archives, relative to where ``kedro run`` is called."""

    path: TextPath | None
    """Of the sources folder, archive and array: where the pictures lie, relative to where ``kedro run`` is called, or
    the URL of an archive or array."""
    sha256: Annotated[Text, Field(pattern="^[0-9a-fA-F]{64}$")] | None
    """Of an archive or array: its checksum; null where it is not to be checked."""
    classes: bool | None
    """Of these sources: whether subfolders are classes; null for where there are several."""
    splits: bool = True
    """Whether folders that are all called like splits (train, val, test, …) are splits, and not classes."""
    follow_links: bool = False
    """Of the source folder: whether links out of the folder are followed."""

    excluded_from_fingerprint: ClassVar[frozenset[str]] = frozenset({"download_folder", "sha256"})

    @field_validator("download_folder")
    @classmethod
    def _on_this_machine(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError("downloads go to a folder on this machine, not to a URL")
        return folder


def _numbers_between(mark: str, expected: str) -> BeforeValidator:
    """The command line has no lists."""
    words = re.compile(rf"\d+({mark}\d+)+")

    def listed(value: Any) -> Any:
        if not isinstance(value, str) or value.isdecimal():
            return value
        if not words.fullmatch(value):
            raise ValueError(f"{value!r} is given, but {expected} is expected")
        return value.split(mark)

    return BeforeValidator(listed)


class ImagesParameters(Group):
    """What all pictures become, and how they are divided."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of each class kept from training, where the source has no test split of its own."""
    seed: Seed
    size: Annotated[
        Side | tuple[Side, Side] | None,
        _numbers_between("x", "a number of pixels such as 32, or height and width such as 40x60,"),
    ]
    """Pixels of a side, or height and width, also as 40x60; null keeps a small size that all have, else chooses one."""
    channels: Literal[1, 3, 4] | None
    """1 grey, 3 colour, 4 colour with transparency; null is grey where all pictures are, else colour."""
    fit: Literal["crop", "pad", "exact"]
    """Of pictures of another shape: cut off what is too long, add borders, or change the shape."""
    background: Annotated[tuple[Byte, Byte, Byte], _numbers_between("/", "red, green and blue such as 255/128/0")]
    """Red, green and blue of borders, and behind what is transparent; also as 255/128/0."""
    max_pixels: PositiveInt
    """Of a picture, before it is decoded; larger ones are rejected."""
    max_rejected_fraction: Fraction
    """Of the files, that may give no picture."""
    perceptual_hash: Literal[False] = False
    """Removed: only ``false`` is accepted. It stays part of the fingerprint, so that stores made before stay valid."""
    workers: NonNegativeInt | None
    """Processes that decode; null for one a core."""

    excluded_from_fingerprint: ClassVar[frozenset[str]] = frozenset({"workers", "max_rejected_fraction"})


class AugmentationParameters(Group):
    """Random changes of the training images, each with a seed of its own per step."""

    horizontal_flip: bool
    vertical_flip: bool
    crop_padding: NonNegativeInt
    """Pixels of padding before a random crop back to the same size; 0 for no crop."""


class ModelParameters(Group):
    """The U-Net (Ho et al. 2020, Appendix B). Number of channels and classes come from the data."""

    width: Annotated[PositiveInt, Field(multiple_of=2, ge=4)]
    """Channels at full resolution."""
    channel_multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Channels of each level, as multiples of ``width``; every level halves the resolution of the one before."""
    blocks_per_level: PositiveInt
    """Residual blocks of each level on the way down; one more on the way up."""
    attention_levels: tuple[NonNegativeInt, ...]
    """Levels with self-attention, 0 the finest. The bottom always has it."""
    head_channels: PositiveInt | None
    """Channels of one attention head; null for a single head."""
    norm_groups: PositiveInt
    """Groups of GroupNorm; must divide the channels of every level."""
    norm_eps: PositiveFloat
    dropout: Fraction
    patch_size: PositiveInt
    """Pixels of a side that are folded into channels before the first convolution; 1 for none."""
    class_conditional: bool
    """Learn the classes, where the data has some."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        widths = [self.width * m for m in self.channel_multipliers]
        for name, divisor in (("norm_groups", self.norm_groups), ("head_channels", self.head_channels)):
            if divisor and (uneven := [w for w in widths if w % divisor]):
                raise ValueError(
                    f"{name} = {divisor} does not divide {uneven[0]}, the channels of a level (levels: {widths}); "
                    f"choose a width that is a multiple of {divisor}, or another {name}"
                )
        if beyond := [level for level in self.attention_levels if level >= len(widths)]:
            raise ValueError(f"attention_levels names level {beyond[0]}, but the levels are 0 to {len(widths) - 1}")
        return self


class DiffusionParameters(Group):
    """The noise schedule and what the network learns to predict."""

    num_timesteps: Annotated[int, Field(ge=2, le=1_000_000)]
    """T."""
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid", "edm", "flow"]
    """Betas of a variance-preserving process; or EDM (Karras et al. 2022), or rectified flow (Liu et al. 2023)."""
    target: Literal["noise", "x0", "v", "edm", "velocity"]
    """Noise (Ho et al. 2020), x_0, v = alpha · noise - sigma · x_0 (Salimans and Ho 2022), EDM's F, noise - x_0."""
    weighting: Literal["none", "min_snr"] = "none"
    """Of the loss along the noise: min(SNR, gamma) for the error of x_0 (Hang et al. 2023), or none."""
    min_snr_gamma: PositiveFloat = 5.0
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """First beta of the linear, scaled_linear and sigmoid schedules."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Their last beta."""
    zero_terminal_snr: bool = False
    """Let the last timestep be pure noise (Lin et al. 2024), where the schedule has betas."""
    sigma_min: PositiveFloat = 0.002
    """Least noise of the EDM schedule."""
    sigma_max: PositiveFloat = 80.0
    """Most noise of the EDM schedule."""
    rho: Annotated[float, Field(ge=1)] = 7.0
    """Of the EDM schedule: how much closer its noise levels lie where there is little noise."""
    log_sigma_mean: float = -1.2
    """P_mean: in training with the EDM schedule, log sigma is normally distributed."""
    log_sigma_std: PositiveFloat = 1.2
    """P_std."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for low, high in (("beta_start", "beta_end"), ("sigma_min", "sigma_max")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.zero_terminal_snr and self.schedule in {"edm", "flow"}:
            raise ValueError(f"zero_terminal_snr is for schedules with betas; {self.schedule} has none")
        if self.target == "noise" and (self.zero_terminal_snr or self.schedule == "flow"):
            what = "zero_terminal_snr" if self.zero_terminal_snr else "schedule = flow"
            raise ValueError(
                f"{what} ends in pure noise, where target = noise says nothing about the image; "
                "choose target = v or x0, and sample with trailing spacing"
            )
        return self


class OptimizerParameters(Group):
    """The optimizer and its learning rate."""

    name: Literal["adam", "adamw", "sgd"]
    lr: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] | None = None
    """Decay rates of Adam's two averages; for adam and adamw alone."""
    momentum: Fraction | None = None
    """For sgd alone."""
    weight_decay: NonNegativeFloat
    warmup_images: NonNegativeInt
    """Images over which the learning rate rises linearly from 0."""
    lr_schedule: Literal["constant", "cosine"]
    """After the warm-up: constant, or a half cosine down to ``final_lr_fraction`` at the last image."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: PositiveFloat
    """Gradients are scaled down to this 2-norm."""

    @model_validator(mode="after")
    def _of_this_optimizer(self) -> Self:
        wanted, foreign = ("momentum", "betas") if self.name == "sgd" else ("betas", "momentum")
        if getattr(self, wanted) is None:
            raise ValueError(f"{self.name} needs {wanted}; choose it with use.optimizer={self.name}")
        if getattr(self, foreign) is not None:
            raise ValueError(f"{self.name} has no {foreign}; did you mean another use.optimizer?")
        return self


class TrainingParameters(Group):
    """The training loop. Progress is counted in images seen."""

    seed: Seed
    initial_model: TextPath | None
    """Folder of a model to start from; null starts from nothing. Its weights name the run, not where they lie."""
    batch_size: PositiveInt
    """Images of one step."""
    num_images: PositiveInt
    """Images seen in all; rounded up to whole batches."""
    resume: Literal["auto", "never", "require"]
    """auto goes on from a checkpoint that these parameters made, or made for another length; never begins anew;
    require goes on from the latest checkpoint, whatever else differs."""
    export: Literal["last", "best"]
    """Which checkpoint becomes the model: the last, or that of the lowest validation loss."""
    keep_checkpoints: PositiveInt
    """Checkpoints of a run that are kept, the latest included."""
    ema_decay: Fraction
    """Of the averaged weights, per step; warmed up as min(decay, (1 + step) / (10 + step))."""
    label_dropout: Fraction
    """Share of labels replaced by the empty one, so that classifier-free guidance has an unconditional model."""
    report_interval: PositiveInt
    """Images between two rows of the history, two previews and two lines of the log."""
    checkpoint_interval: PositiveInt
    """Images between two checkpoints; the last step always writes one."""
    validation_images: PositiveInt
    """Images of the hold-out for the validation loss, at most."""
    preview_images: NonNegativeInt
    """Images of a preview; 0 for none."""
    preview_steps: PositiveInt
    """DPM-Solver++ steps of a preview."""
    preview_guidance_scale: Annotated[float, Field(ge=0)]
    accumulation_steps: PositiveInt
    """Parts in which a batch is computed one after the other: less memory, the same gradients but for rounding."""
    activation_checkpointing: bool
    """Compute activations a second time in the backward pass: less memory, more time."""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"]
    """Mode of torch.compile; its compilation takes minutes."""
    loader_workers: NonNegativeInt
    """Processes that read images ahead; 0 reads them in the training process, or on a GPU where they fit there."""
    process_timeout: PositiveInt
    """Under torchrun: seconds to wait for the other processes."""
    device: Device
    precision: Precision
    deterministic: bool
    """Only algorithms that give the same bytes every time; on a GPU that costs speed."""

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps = {self.accumulation_steps} does not divide batch_size = {self.batch_size}"
            )
        return self

    excluded_from_fingerprint: ClassVar[frozenset[str]] = frozenset(
        {
            "initial_model",
            "resume",
            "export",
            "keep_checkpoints",
            "accumulation_steps",
            "activation_checkpointing",
            "compile",
            "process_timeout",
            "report_interval",
            "checkpoint_interval",
            "validation_images",
            "preview_images",
            "preview_steps",
            "preview_guidance_scale",
            "loader_workers",
            "device",
            "precision",
            "deterministic",
        }
    )
