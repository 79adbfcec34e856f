"""Checkpoints on disk."""

import itertools
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

import torch

from ddpm_kedro.atomic import atomic_write, copy, move
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.errors import UserError
from ddpm_kedro.files import DAMAGE, check_zip, reason_of
from ddpm_kedro.models import RunRecord
from ddpm_kedro.nothing import Nothing
from ddpm_kedro.training.run import Checkpoint

logger = logging.getLogger(__name__)
FORMAT, FORMAT_2 = "ddpm_kedro checkpoint 3", "ddpm_kedro checkpoint 2"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class CheckpointDataset(LocalDataset[Checkpoint | Nothing, Checkpoint | None]):
    """The latest checkpoint, or None before the first one is saved.

    When the first checkpoint of another run is saved, the last checkpoint of the earlier run is kept.

    Args:
        filepath: path of the latest checkpoint.
        archive: folder of older checkpoints. ``<run id>/checkpoint.pt`` is the last one of an earlier run;
            ``<run id>/checkpoints/`` has the earlier ones of each run.
        keep: number of checkpoints to keep per run, including the latest.
        metadata: any values for hooks and plugins.
    """

    def __init__(self, *, filepath: str, archive: str, keep: int = 1, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._archive, self._keep = Path(self._local(archive)), keep
        self._seen: tuple[tuple[int, int], tuple[str, int]] | None = None

    def load(self) -> Checkpoint | None:
        """Load the checkpoint to the CPU; nothing in the file is executed. A damaged file raises a UserError."""
        return self._read() if self._exists() else None

    def save(self, data: Checkpoint | Nothing) -> None:
        """Move a checkpoint of another run to the archive, then write this one."""
        if isinstance(data, Nothing):
            return
        self._keep_earlier(data)
        with atomic_write(self._filepath) as file:
            torch.save({"format": FORMAT, **data.as_dict()}, file)
        self._remember(data)
        for path in self._earlier(data.run_id)[self._keep - 1 :]:
            path.unlink()

    def archived(self, run_id: str) -> Path:
        """Return the path at which the checkpoint of an earlier run is kept."""
        return self._archive / _plain(run_id) / self._filepath.name

    def restore(self, run_id: str) -> Checkpoint | None:
        """Make the kept checkpoint of an earlier run the latest one again; return None if no checkpoint was kept."""
        kept = self.archived(run_id)
        if not kept.exists():
            return None
        if self._exists():
            self._put_aside()
        move(kept, self._filepath)
        return self.load()

    def retire(self, run_id: str | None = None) -> list[Path]:
        """Move the checkpoints of a run, or of all runs, to folders from which no run resumes; return these folders."""
        if self._exists() and run_id in {None, self._latest()[0]}:
            self._put_aside()
        return [self._retire_kept(folder) for folder in sorted(self._archive.glob(run_id or "*")) if self._kept(folder)]

    def _kept(self, folder: Path) -> list[Path]:
        """Return the checkpoints in the folder of a run: the latest and the earlier ones."""
        return [*folder.glob(self._filepath.name), *folder.glob(f"{self._folder}/*.pt")]

    def _retire_kept(self, folder: Path) -> Path:
        retired = next(path for n in itertools.count(1) if not self._kept(path := folder / f"retired_{n}"))
        for path in self._kept(folder):
            move(path, retired / path.relative_to(folder))
        return retired

    def _put_aside(self) -> Path:
        """Move the latest checkpoint to the folder of its run, and retire a checkpoint that is already there."""
        kept = self.archived(self._latest()[0])
        if kept.exists():
            self._retire_kept(kept.parent)
        move(self._filepath, kept)
        return kept

    def _keep_earlier(self, new: Checkpoint) -> None:
        """Keep the latest checkpoint if it belongs to another run, or if several checkpoints per run are kept."""
        if not self._exists():
            return
        run_id, images_seen = self._latest()
        if run_id != new.run_id:
            logger.info("The checkpoint of the earlier run %s is kept as %s", run_id, self._put_aside())
        elif self._keep > 1 and images_seen != new.images_seen:
            kept = self._archive / run_id / self._folder / f"images_seen_{images_seen:010d}.pt"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not kept.exists():
                _link(self._filepath, kept)

    def _latest(self) -> tuple[str, int]:
        """Return run id and images seen of the latest checkpoint; read it only if the file has changed."""
        file = self._filepath.stat()
        if self._seen is None or self._seen[0] != (file.st_mtime_ns, file.st_ino):
            self._remember(self._read(mmap=True))
        assert self._seen is not None
        return self._seen[1]

    def _remember(self, checkpoint: Checkpoint) -> None:
        file = self._filepath.stat()
        self._seen = (file.st_mtime_ns, file.st_ino), (checkpoint.run_id, checkpoint.images_seen)

    @property
    def _folder(self) -> str:
        return f"{self._filepath.stem}s"

    def _earlier(self, run_id: str) -> list[Path]:
        """Return the checkpoints of a run that are older than its latest one, the newest first."""
        return sorted((self._archive / run_id / self._folder).glob("images_seen_*.pt"), reverse=True)

    def _read(self, mmap: bool = False) -> Checkpoint:
        try:
            check_zip(self._filepath, "data.pkl" if mmap else "")  # with mmap no tensor is read, so none is checked
            content = torch.load(self._filepath, map_location="cpu", weights_only=True, mmap=mmap)
            found = content.pop("format")
            if found not in {FORMAT, FORMAT_2}:
                raise ValueError(f"its format is {found!r:.60}")
            return _check(Checkpoint.from_dict(content if found == FORMAT else _convert_format_2(content)))
        except DAMAGE as error:
            raise UserError(
                f"{self._filepath} is damaged or not a checkpoint of this version ({reason_of(error)}). "
                f"Move it away to train from scratch{self._hint_at_earlier_one()}."
            ) from error

    def _hint_at_earlier_one(self) -> str:
        found = sorted(self._archive.glob(f"*/{self._folder}/images_seen_*.pt"), key=lambda path: path.stat().st_mtime)
        return f", or replace it by an earlier one: mv {found[-1]} {self._filepath}" if found else ""


def _convert_format_2(content: dict[str, Any]) -> dict[str, Any]:
    """Convert a checkpoint of the earlier format: the same values under other names.

    Raises:
        ValueError: if the stored run id is not the id computed from parameters and inputs.
    """
    names = {"training_images": "data", "initial_model": "initial_model", "continued_from": "continued_from"}
    inputs = {name: content.get(old) for name, old in names.items()}
    record = {name: content[name] for name in ("parameters", "image_shape", "class_names")} | {
        "inputs": {name: value for name, value in inputs.items() if value is not None},
        "tracking_id": content.get("tracking_id"),
    }
    if RunRecord.from_dict(record).run_id != content["run_id"]:
        raise ValueError(f"its parameters do not match its run id {content['run_id']!r:.60}")
    kept = ("images_seen", "network", "optimizer", "scaler", "history", "meter")
    best = content.get("best_validation_loss", math.inf)
    renamed = {"record": record, "ema": content["average"], "best_validation_loss": best}
    return {name: content[name] for name in kept} | renamed


def _check(checkpoint: Checkpoint) -> Checkpoint:
    """Refuse a name that could lead out of the data folder, and a checkpoint without training parameters."""
    _plain(checkpoint.record.tracking_id or checkpoint.run_id)
    if not isinstance(checkpoint.record.made_by.parameters.get("training"), dict):
        raise TypeError("no parameters of training")
    return checkpoint


def _plain(run_id: str) -> str:
    """Return the id of a run as the name of its folder; raise a ValueError if it is not a plain name."""
    if not isinstance(run_id, str) or not PLAIN.fullmatch(run_id):
        raise ValueError(f"the id of its run is {run_id!r:.60}, which is not a plain name")
    return run_id


def _link(path: Path, new: Path) -> None:
    """Give a file a second name; copy it if the file system has no hard links."""
    try:
        os.link(path, new)
    except OSError:
        copy(path, new)
