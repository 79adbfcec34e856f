"""The resume plan of a training: from scratch, or from a checkpoint."""

from dataclasses import dataclass, replace

from ddpm_kedro.errors import UserError
from ddpm_kedro.provenance import differences
from ddpm_kedro.training.run import Checkpoint, Run


@dataclass(frozen=True)
class ResumePlan:
    """The run to train, and the checkpoint that it resumes from.

    Attributes:
        run: requested run; its ``continued_from`` is set if it began with other parameters.
        checkpoint: checkpoint that the run resumes from; None to start from scratch.
        other: id of the run that made the latest checkpoint, if it is another run.
        changed: differences between that run and the requested one, one line per value.
    """

    run: Run
    checkpoint: Checkpoint | None = None
    other: str | None = None
    changed: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run, latest: Checkpoint | None) -> "ResumePlan":
        """Plan a run from the latest checkpoint, as ``training.resume`` says.

        Raises:
            UserError: if the run must resume, but cannot.
        """
        resume = run.training.resume
        if latest is None or resume == "never":
            if resume == "require":
                raise UserError("training.resume = require, but there is no checkpoint; auto starts from scratch.")
            return cls(run)
        continued = _continued_like(run, latest)
        if continued.run_id == latest.run_id:
            return cls(continued, latest)
        changed, longer = tuple(_changes(latest, run)), _only_longer(latest, run)
        if resume == "require":
            _check_fits(latest, run)
        elif not longer:
            return cls(run, None, latest.run_id, changed)
        if not longer or run.optimizer.lr_schedule != "constant":
            continued = replace(continued, continued_from=f"{latest.run_id}@{latest.images_seen}")
        return cls(continued, latest, latest.run_id, changed)

    @property
    def finished(self) -> bool:
        """Return whether there is nothing left to train."""
        return self.checkpoint is not None and self.checkpoint.images_seen >= self.run.num_images


def belongs_to(checkpoint: Checkpoint, run: Run) -> bool:
    """Return whether the checkpoint belongs to this run, which may continue another run."""
    return _continued_like(run, checkpoint).run_id == checkpoint.run_id


def _continued_like(run: Run, latest: Checkpoint) -> Run:
    """Return this run with ``continued_from`` and ``tracking_id`` copied from the checkpoint."""
    record = latest.record
    return replace(run, continued_from=record.made_by.inputs.get("continued_from"), tracking_id=record.tracking_id)


def _changes(latest: Checkpoint, run: Run) -> list[str]:
    """Return how this run differs from the run of a checkpoint, one line per value."""
    earlier, current = latest.record.made_by, run.record.made_by
    changed = differences(earlier.parameters, current.parameters)
    for name, label in (("training_images", "training images"), ("initial_model", "initial weights")):
        old, new = earlier.inputs.get(name, "none"), current.inputs.get(name, "none")
        if old != new:
            changed.append(f"{label}: {old} → {new}")
    return changed


def _only_longer(latest: Checkpoint, run: Run) -> bool:
    """Return whether only the length differs, and the checkpoint has seen at most ``num_images`` images of this run."""
    length = {"num_images": latest.record.made_by.parameters["training"]["num_images"]}
    as_long = replace(run, training=run.training.model_copy(update=length))
    return not _changes(latest, as_long) and latest.images_seen <= run.num_images


def _check_fits(latest: Checkpoint, run: Run) -> None:
    """Refuse a checkpoint of another network or optimizer, and one that lacks the weights of augmentation labels."""
    records = [each.made_by.parameters for each in (latest.record, run.record)]
    optimizers = [{"optimizer": {"name": parameters["optimizer"]["name"]}} for parameters in records]
    changes = latest.record.network_differences(run.record) + differences(*optimizers)
    non_leaking = [parameters["augmentation"].get("non_leaking", 0.0) for parameters in records]
    if any(non_leaking) and not all(non_leaking):
        changes.append(f"augmentation.non_leaking: {non_leaking[0]} → {non_leaking[1]}")
    if changes:
        raise UserError(
            f"training.resume = require, but the checkpoint of run {latest.run_id} does not fit: {'; '.join(changes)}. "
            "Use its parameters, or start from scratch with training.resume=auto."
        )
