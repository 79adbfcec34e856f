"""Where a training begins: at nothing, or at a checkpoint."""

from dataclasses import dataclass, replace

from ddpm_kedro.parameters import UserError
from ddpm_kedro.provenance import differences
from ddpm_kedro.training.run import Checkpoint, Run

LENGTH = "training.num_images"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        run: that is trained: the one that was asked for, with what it continues.
        checkpoint: where it goes on; None where it begins at nothing.
        other: id of the run that the latest checkpoint was made by, where that is another one.
        changed: how that run differs, one readable line a value.
    """

    run: Run
    checkpoint: Checkpoint | None = None
    other: str | None = None
    changed: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run, latest: Checkpoint | None) -> "Start":
        """How ``training.resume`` wants this run to begin, given the latest checkpoint.

        Raises:
            UserError: where it must go on, but cannot.
        """
        resume = run.training.resume
        if latest is None or resume == "never":
            if resume == "require":
                raise UserError("training.resume = require, but there is no checkpoint; auto begins a training.")
            return cls(run)
        again = replace(run, continued_from=latest.continued_from, tracking_id=latest.tracking_id)
        if again.run_id == latest.run_id:
            return cls(again, latest)
        changed = _changes(latest, run)
        if resume == "require":
            _check_fits(latest, run)
        elif any(not line.startswith(f"{LENGTH}:") for line in changed) or latest.images_seen > run.num_images:
            return cls(run, None, latest.run_id, tuple(changed))
        if len(changed) > 1 or run.optimizer.lr_schedule != "constant":
            again = replace(again, continued_from=f"{latest.run_id}@{latest.images_seen}")
        return cls(again, latest, latest.run_id, tuple(changed))

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.checkpoint is not None and self.checkpoint.images_seen >= self.run.num_images


def _changes(latest: Checkpoint, run: Run) -> list[str]:
    """What differs between the run of a checkpoint and this one, one readable line a value."""
    changed = differences(latest.parameters, run.parameters)
    if latest.data != run.data:
        changed.append(f"training images: {latest.data} → {run.data}")
    if latest.initial_model != run.initial_model:
        changed.append(f"initial weights: {latest.initial_model or 'none'} → {run.initial_model or 'none'}")
    return changed


def _check_fits(latest: Checkpoint, run: Run) -> None:
    """The state of a checkpoint must be that of this network and this optimizer."""
    networks = [{"model": dict(p["model"]) | {"dropout": None}} for p in (latest.parameters, run.parameters)]
    optimizers = [{"optimizer": {"name": p["optimizer"]["name"]}} for p in (latest.parameters, run.parameters)]
    unfit = differences(*networks) + differences(*optimizers)
    around = {
        "image shape": (latest.image_shape, run.image_shape),
        "classes": (len(latest.class_names), len(run.class_names)),
    }
    unfit += [f"{name}: {before} → {now}" for name, (before, now) in around.items() if before != now]
    if unfit:
        raise UserError(
            f"training.resume = require, but what the checkpoint of run {latest.run_id} holds does not fit: "
            f"{'; '.join(unfit)}. Give it the parameters of before, or begin anew: training.resume=auto."
        )
