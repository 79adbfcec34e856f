"""The table of optimizers, and the group that chooses one."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from ddpm_kedro.parameters.base import Fraction, Group


@dataclass(frozen=True)
class OptimizerKind:
    """Say how an optimizer is built.

    Attributes:
        path: import path of the class or function. It is called with weights, ``lr``, ``weight_decay``,
            hyperparameters and options.
        hyperparameters: names of its other arguments: fields of :class:`OptimizerParameters` that are None by default.
        options: arguments that are always the same.
        states: number of values that it keeps per weight.
    """

    path: str
    states: int
    hyperparameters: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


OptimizerName = Literal["adam", "adamw", "sgd"]
OPTIMIZERS: dict[OptimizerName, OptimizerKind] = {
    "adam": OptimizerKind("torch.optim.Adam", 2, ("betas",), {"fused": True}),
    "adamw": OptimizerKind("torch.optim.AdamW", 2, ("betas",), {"fused": True}),
    "sgd": OptimizerKind("torch.optim.SGD", 1, ("momentum",), {"fused": True}),
}


class OptimizerParameters(Group):
    """The optimizer and its learning rate."""

    name: OptimizerName
    lr: PositiveFloat
    """Peak learning rate."""
    betas: tuple[Fraction, Fraction] | None = None
    """Decay rates of Adam's two moving averages."""
    momentum: Fraction | None = None
    weight_decay: NonNegativeFloat
    warmup_images: NonNegativeInt
    """Images over which the learning rate rises linearly from 0."""
    lr_schedule: Literal["constant", "cosine"]
    """After the warm-up: constant, or a half cosine down to ``final_lr_fraction`` at the last image."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: PositiveFloat
    """Gradients are scaled down to this 2-norm."""

    @model_validator(mode="after")
    def _check_hyperparameters(self) -> Self:
        taken = OPTIMIZERS[self.name].hyperparameters
        if missing := [name for name in taken if getattr(self, name) is None]:
            raise ValueError(f"{self.name} needs {missing[0]}; choose it with use.optimizer={self.name}")
        others = {name for kind in OPTIMIZERS.values() for name in kind.hyperparameters if name not in taken}
        if foreign := [name for name in sorted(others) if getattr(self, name) is not None]:
            raise ValueError(f"{self.name} has no {foreign[0]}; did you mean another use.optimizer?")
        return self
