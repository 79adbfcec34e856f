"""The parameter groups of a training: augmentation, network, diffusion, loop."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from ddpm_kedro.parameters.base import Device, Fraction, Group, NotInFingerprint, Precision, Seed, Share, TextPath
from ddpm_kedro.parameters.earlier import explain_ema_decay


class AugmentationParameters(Group):
    """Random augmentation of the training images, seeded per step."""

    horizontal_flip: bool
    vertical_flip: bool
    crop_padding: NonNegativeInt
    """Pixels of padding before a random crop back to the same size; 0 for no crop."""
    non_leaking: Share
    """Probability of each geometric transformation of EDM's pipeline (Karras et al. 2022, appendix F). The network is
    told what was done, so that samples show none of it; 0 for none."""


class ModelParameters(Group):
    """The U-Net (Ho et al. 2020, Appendix B). The data gives the numbers of image channels and classes."""

    network: ClassVar[str] = "unet"
    """A name in ``ddpm_kedro.models.NETWORKS``, which has one entry."""
    width: Annotated[PositiveInt, Field(multiple_of=2, ge=4)]
    """Channels at full resolution."""
    channel_multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Channels of each level, as multiples of ``width``; each level halves the resolution."""
    blocks_per_level: PositiveInt
    """Residual blocks per level of the encoder; the decoder has one more."""
    attention_levels: tuple[NonNegativeInt, ...]
    """Levels with self-attention; 0 is the finest. The bottleneck always has it."""
    head_channels: PositiveInt | None
    """Channels per attention head; null for a single head."""
    norm_groups: PositiveInt
    """Groups of GroupNorm; must divide the channels of every level."""
    norm_eps: PositiveFloat
    dropout: Fraction
    patch_size: PositiveInt
    """Side of the pixel patches that are folded into channels before the first convolution; 1 for none."""
    class_conditional: bool
    """Condition on the class, if the data has classes."""

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
    """The noise schedule and the prediction target."""

    num_timesteps: Annotated[int, Field(ge=2, le=1_000_000)]
    """T, the number of timesteps."""
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid", "edm", "flow"]
    """Betas of a variance-preserving process, EDM (Karras et al. 2022), or rectified flow (Liu et al. 2023)."""
    target: Literal["noise", "x0", "v", "edm", "velocity"]
    """Noise (Ho et al. 2020), x_0, v = alpha · noise - sigma · x_0 (Salimans and Ho 2022), EDM's F, noise - x_0."""
    weighting: Literal["none", "min_snr"] = "none"
    """Weight of the loss at each noise level: min(SNR, gamma) on the error of x_0 (Hang et al. 2023), or none."""
    min_snr_gamma: PositiveFloat = 5.0
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """First beta of the linear, scaled_linear and sigmoid schedules."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Last beta of the same schedules."""
    zero_terminal_snr: bool = False
    """Make the last timestep pure noise (Lin et al. 2024); for schedules with betas."""
    sigma_min: PositiveFloat = 0.002
    """Lowest noise level of the EDM schedule."""
    sigma_max: PositiveFloat = 80.0
    """Highest noise level of the EDM schedule."""
    rho: Annotated[float, Field(ge=1)] = 7.0
    """Exponent of the EDM schedule: larger values put more steps at low noise."""
    log_sigma_mean: float = -1.2
    """P_mean: mean of log sigma in training with the EDM schedule (normal distribution)."""
    log_sigma_std: PositiveFloat = 1.2
    """P_std: its standard deviation."""

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
                f"{what} ends in pure noise, so that target = noise contains no information about the image; "
                "choose target = v or x0, and sample with trailing spacing"
            )
        return self


class TrainingParameters(Group):
    """The training loop. Progress is counted in images seen."""

    seed: Seed
    initial_model: NotInFingerprint[TextPath | None]
    """Folder of a model to start from; null: random weights. Its weights, not its path, affect the run id."""
    batch_size: PositiveInt
    """Images per step."""
    num_images: PositiveInt
    """Length of the training in images seen; rounded up to whole batches."""
    resume: NotInFingerprint[Literal["auto", "never", "require"]]
    """auto: resume from a checkpoint of the same parameters, also if its training had another length. never: start from
    scratch. require: resume from the latest checkpoint if network
    and optimizer are the same, whatever else differs."""
    export: NotInFingerprint[Literal["last", "best"]]
    """The checkpoint to export as the model: the last one, or the one with the lowest validation loss."""
    keep_checkpoints: NotInFingerprint[PositiveInt]
    """Number of checkpoints to keep per run, including the latest."""
    ema_half_life: PositiveFloat
    """Half-life of the EMA in images: weights that were reached so many images ago count half as much as the latest."""
    ema_rampup_ratio: Annotated[float, Field(gt=0, le=1)] | None
    """Limit of the half-life as a fraction of the images seen so far, so that the EMA forgets the random initial
    weights; null: no limit."""
    label_dropout: Fraction
    """Fraction of labels replaced by the empty label, for classifier-free guidance."""
    report_interval: NotInFingerprint[PositiveInt]
    """Images between two log lines, rows of the history and previews."""
    checkpoint_interval: NotInFingerprint[PositiveInt]
    """Images between two checkpoints; the last step always writes one."""
    validation_images: NotInFingerprint[PositiveInt]
    """Maximum number of holdout images for the validation loss."""
    preview_images: NotInFingerprint[NonNegativeInt]
    """Images per preview; 0 for no previews."""
    preview_steps: NotInFingerprint[PositiveInt]
    """DPM-Solver++ steps per preview."""
    preview_guidance_scale: NotInFingerprint[Annotated[float, Field(ge=0)]]
    accumulation_steps: NotInFingerprint[PositiveInt]
    """Parts of a batch, computed one after the other: less memory, the same gradients except for rounding."""
    activation_checkpointing: NotInFingerprint[bool]
    """Recompute activations in the backward pass: less memory, more time."""
    out_of_memory: NotInFingerprint[Literal["stop", "accumulate", "try"]] = "stop"
    """What to do if the device has too little memory: end with the values that fit; compute each batch in more parts;
    or try it nevertheless, if only the estimate says so."""
    compile: NotInFingerprint[Literal["none", "default", "reduce-overhead", "max-autotune"]]
    """Mode of torch.compile; compiling takes minutes."""
    loader_workers: NotInFingerprint[NonNegativeInt]
    """Processes that load images; 0: load in the training process, or keep the images on the GPU if they fit."""
    process_timeout: NotInFingerprint[PositiveInt]
    """Seconds to wait for other processes (torchrun)."""
    device: NotInFingerprint[Device]
    precision: NotInFingerprint[Precision]
    deterministic: NotInFingerprint[bool]
    """Use only deterministic algorithms; slower on a GPU."""

    @model_validator(mode="before")
    @classmethod
    def _without_ema_decay(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "ema_decay" in values:
            raise PydanticCustomError("replaced", "{message}", {"message": explain_ema_decay(values)})
        return values

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps = {self.accumulation_steps} does not divide batch_size = {self.batch_size}"
            )
        return self
