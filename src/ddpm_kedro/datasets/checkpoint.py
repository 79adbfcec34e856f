"""Where a training run stands, on disk."""

import itertools
import logging
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ddpm_kedro.atomic import atomic_write, copy, move
from ddpm_kedro.datasets.base import LocalDataset
from ddpm_kedro.datasets.reading import DAMAGE, check_zip, reason_of
from ddpm_kedro.errors import UserError
from ddpm_kedro.training.run import Checkpoint

logger = logging.getLogger(__name__)
FORMAT = "ddpm_kedro checkpoint 2"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Nothing = dict[str, Any]


class CheckpointDataset(LocalDataset[Checkpoint | Nothing, Checkpoint | None]):
    """The latest checkpoint. Loading gives None where there is none; saving ``{}`` writes nothing.

    The last checkpoint of an earlier run is kept, not overwritten, when the first of another run is saved.

    Args:
        filepath: of the latest checkpoint.
        archive: folder that keeps, of ``checkpoint.pt`` say, ``<run id>/checkpoint.pt`` of earlier runs and
            ``<run id>/checkpoints/`` with those before the latest of each run.
        keep: checkpoints of a run, the latest included.
        metadata: free-form.
    """

    def __init__(self, *, filepath: str, archive: str, keep: int = 1, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._archive, self._keep = Path(self._local(archive)), keep
        self._seen: tuple[tuple[int, int], tuple[str, int]] | None = None

    def load(self) -> Checkpoint | None:
        """The checkpoint, on the CPU; nothing in the file is executed.

        Raises:
            UserError: for a file that is damaged or no checkpoint of this project.
        """
        return self._read() if self._exists() else None

    def save(self, data: Checkpoint | Nothing) -> None:
        """Write, with whatever another run left put aside first."""
        if not isinstance(data, Checkpoint):
            return
        self._keep_earlier(data)
        content = {field.name: getattr(data, field.name) for field in fields(data)}
        with atomic_write(self._filepath) as file:
            torch.save({"format": FORMAT} | content, file)
        self._remember(data)
        for surplus in self._earlier(data.run_id)[self._keep - 1 :]:
            surplus.unlink()

    def archived(self, run_id: str) -> Path:
        """Where the checkpoint of an earlier run is kept."""
        return self._archive / _plain(run_id) / self._filepath.name

    def restore(self, run_id: str) -> Checkpoint | None:
        """Make the kept checkpoint of an earlier run the latest one again; None where there is none."""
        kept = self.archived(run_id)
        if not kept.exists():
            return None
        if self._exists():
            self._put_aside()
        move(kept, self._filepath)
        return self.load()

    def retire(self, run_id: str | None = None) -> list[Path]:
        """Move the checkpoints of a run, or of all runs, to where none is looked for.

        Returns:
            The folders that they are moved to, ``<run id>/retired_1`` below the archive.
        """
        if self._exists() and run_id in {None, self._standing()[0]}:
            self._put_aside()
        return [self._retire_kept(folder) for folder in sorted(self._archive.glob(run_id or "*")) if self._kept(folder)]

    def _kept(self, folder: Path) -> list[Path]:
        """Return the checkpoints in the folder of a run: the latest, and those before it."""
        return [*folder.glob(self._filepath.name), *folder.glob(f"{self._folder}/*.pt")]

    def _retire_kept(self, folder: Path) -> Path:
        retired = next(path for n in itertools.count(1) if not self._kept(path := folder / f"retired_{n}"))
        for path in self._kept(folder):
            move(path, retired / path.relative_to(folder))
        return retired

    def _put_aside(self) -> Path:
        """Move the latest checkpoint to the folder of its run, where one that is there already is retired."""
        kept = self.archived(self._standing()[0])
        if kept.exists():
            self._retire_kept(kept.parent)
        move(self._filepath, kept)
        return kept

    def _keep_earlier(self, new: Checkpoint) -> None:
        """Keep what would be overwritten: of another run its last, of this run some."""
        if not self._exists():
            return
        run_id, images_seen = self._standing()
        if run_id != new.run_id:
            logger.info("The checkpoint of the earlier run %s is kept as %s", run_id, self._put_aside())
        elif self._keep > 1 and images_seen != new.images_seen:
            kept = self._archive / run_id / self._folder / f"images_seen_{images_seen:010d}.pt"
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not kept.exists():
                _link(self._filepath, kept)

    def _standing(self) -> tuple[str, int]:
        """Run and images seen of what lies there; read only where it is not what was read or written last."""
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
        """The checkpoints of a run before its latest, the newest first."""
        return sorted((self._archive / run_id / self._folder).glob("images_seen_*.pt"), reverse=True)

    def _read(self, mmap: bool = False) -> Checkpoint:
        try:
            check_zip(self._filepath, "data.pkl" if mmap else "")  # without the tensors, where they are not read
            content = torch.load(self._filepath, map_location="cpu", weights_only=True, mmap=mmap)
            if content.pop("format") != FORMAT:
                raise ValueError("unknown format")
            content["image_shape"], content["class_names"] = (
                tuple(content["image_shape"]),
                tuple(content["class_names"]),
            )
            return _checked(Checkpoint(**content))
        except DAMAGE as error:
            raise UserError(
                f"{self._filepath} is damaged or no checkpoint of this version ({reason_of(error)}). "
                f"Move it away to train from the beginning{self._or_take_an_earlier_one()}."
            ) from error

    def _or_take_an_earlier_one(self) -> str:
        found = sorted(self._archive.glob(f"*/{self._folder}/images_seen_*.pt"), key=lambda path: path.stat().st_mtime)
        return f", or put an earlier one in its place: mv {found[-1]} {self._filepath}" if found else ""


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Refuse names that could lead out of the data folder, and what no checkpoint of this project holds."""
    for name in (checkpoint.run_id, checkpoint.tracking_id or checkpoint.run_id):
        _plain(name)
    if not isinstance(checkpoint.parameters.get("training"), dict):
        raise TypeError("no parameters of training")
    return checkpoint


def _plain(run_id: str) -> str:
    """The id of a run as the name of its folder.

    Raises:
        ValueError: for an id that is no plain name.
    """
    if not isinstance(run_id, str) or not PLAIN.fullmatch(run_id):
        raise ValueError(f"the run is called {run_id!r:.60}, which is no plain name")
    return run_id


def _link(path: Path, new: Path) -> None:
    """The same file under a second name; a copy where the file system knows no such thing."""
    try:
        os.link(path, new)
    except OSError:
        copy(path, new)
