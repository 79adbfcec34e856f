"""Where a training begins: at nothing, or at a checkpoint."""

from dataclasses import dataclass, replace

from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import differences
from ddpm_kedro.training.run import Checkpoint, Run


@dataclass(frozen=True)
class ResumePlan:
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
    def of(cls, run: Run, latest: Checkpoint | None) -> "ResumePlan":
        """How ``training.resume`` wants this run to begin, given the latest checkpoint.

        Raises:
            UserError: where it must go on, but cannot.
        """
        resume = run.training.resume
        if latest is None or resume == "never":
            if resume == "require":
                raise UserError("training.resume = require, but there is no checkpoint; auto begins a training.")
            return cls(run)
        again = _under_its_name(run, latest)
        if again.run_id == latest.run_id:
            return cls(again, latest)
        changed, longer = tuple(_changes(latest, run)), _only_longer(latest, run)
        if resume == "require":
            _check_fits(latest, run)
        elif not longer:
            return cls(run, None, latest.run_id, changed)
        if not longer or run.optimizer.lr_schedule != "constant":
            again = replace(again, continued_from=f"{latest.run_id}@{latest.images_seen}")
        return cls(again, latest, latest.run_id, changed)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.checkpoint is not None and self.checkpoint.images_seen >= self.run.num_images


def _under_its_name(run: Run, latest: Checkpoint) -> Run:
    record = latest.record
    return replace(run, continued_from=record.made_by.inputs.get("continued_from"), tracking_id=record.tracking_id)


def _changes(latest: Checkpoint, run: Run) -> list[str]:
    """What differs between the run of a checkpoint and this one, one readable line a value."""
    then, now = latest.record.made_by, run.record.made_by
    changed = differences(then.parameters, now.parameters)
    for name, label in (("training_images", "training images"), ("initial_model", "initial weights")):
        earlier, current = (made_by.inputs.get(name, "none") for made_by in (then, now))
        if earlier != current:
            changed.append(f"{label}: {earlier} → {current}")
    return changed


def _only_longer(latest: Checkpoint, run: Run) -> bool:
    """Whether the run asks for what the checkpoint's asked for, but for another length that it has not yet passed."""
    length = {"num_images": latest.record.made_by.parameters["training"]["num_images"]}
    as_long = replace(run, training=run.training.model_copy(update=length))
    return not _changes(latest, as_long) and latest.images_seen <= run.num_images


def _check_fits(latest: Checkpoint, run: Run) -> None:
    """The state of a checkpoint must be that of this network and this optimizer."""
    records = (latest.record, run.record)
    optimizers = [{"optimizer": {"name": record.made_by.parameters["optimizer"]["name"]}} for record in records]
    if unfit := latest.record.network_differences(run.record) + differences(*optimizers):
        raise UserError(
            f"training.resume = require, but what the checkpoint of run {latest.run_id} holds does not fit: "
            f"{'; '.join(unfit)}. Give it the parameters of before, or begin anew: training.resume=auto."
        )
