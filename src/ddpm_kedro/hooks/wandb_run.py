"""A run of Weights & Biases: started or resumed, online or offline."""

import json
import logging
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpm_kedro.atomic import write_text
from ddpm_kedro.files import reason_of
from ddpm_kedro.provenance import flatten, redact_text

logger = logging.getLogger(__name__)
ONLINE_TIMEOUT = 20.0  # seconds to wait for the server before logging offline
FINISH_TIMEOUT = 300.0  # seconds to wait for the last uploads; the rest can be uploaded later
QUIET: dict[str, Any] = {"console": "off", "disable_code": True, "silent": True}  # log neither code nor terminal output
PROJECT = "ddpm_kedro"
SETTINGS = {"project": "project", "entity": "entity", "name": "run_name", "group": "run_group"}
"""W&B's setting of each parameter in the group ``tracking``."""


class WandbRun:
    """A run of W&B: one per training from scratch, and the same one when that training is resumed.

    Args:
        parameters: all parameters, without secrets.
        folder: folder of W&B's files.
        figures: figures by name, to log with the next row; logged figures are removed from the dictionary.
    """

    def __init__(self, parameters: dict[str, Any], folder: Path, figures: dict[str, Any]) -> None:
        self.parameters, self.folder, self.figures = parameters, folder, figures
        self.run: Any = None
        self.logged, self.number, self.upload = 0, 1, ""
        self.state_file = folder

    def start(self, tracking_id: str, resumed: int | None, mode: str) -> None:
        """Start a W&B run, or resume the run of a checkpoint.

        Args:
            tracking_id: id of the training.
            resumed: number of images seen at the checkpoint; None for a training from scratch: it gets a new W&B run.
            mode: "online" or "offline".
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sys.argv[1:] = map(redact_text, sys.argv[1:])  # W&B stores the command line
        os.environ.setdefault("WANDB_DATA_DIR", str(self.folder))  # otherwise artifacts wait elsewhere for their upload
        self.state_file = self.folder / f"{tracking_id}.json"
        state = self._read_state()
        self.number = state.get("number", 1) + (resumed is None and bool(state))
        self._open(tracking_id, mode)
        while resumed is None and self.run.resumed and self.run.id == _wandb_id(tracking_id, self.number):
            self.run.finish()  # the server has this id from another folder, and would drop rows that it has
            self.number += 1
            self._open(tracking_id, mode)
        known = self.run.id == state.get("id", _wandb_id(tracking_id, self.number))
        self.logged = state.get("images_seen", resumed) if resumed is not None and known else 0
        self.run.define_metric("*", step_metric="images_seen")
        if self.logged:
            self.figures.clear()  # they are logged already
            return
        artifact = self._artifact("parameters")
        with artifact.new_file("parameters.json") as file:
            json.dump(self.parameters, file, indent=2)
        self.run.log_artifact(artifact)
        self._log_figures()

    def log_history(self, history: list[dict[str, float]]) -> None:
        """Log new rows, each at its number of images seen, and figures with the newest."""
        new = [row for row in history if row["images_seen"] > self.logged]
        for row in new:
            figures = self._take_figures() if row is new[-1] else {}
            self.run.log({**row, **figures}, step=int(row["images_seen"]))
            self.logged = int(row["images_seen"])
        # A training that resumes from an earlier checkpoint after a kill logs no row again.
        state = {"images_seen": self.logged, "number": self.number, "id": self.run.id}
        write_text(self.state_file, json.dumps(state))

    def log_summary(self, metrics: dict[str, Any]) -> None:
        """Log metrics of the whole run."""
        self.run.summary.update(metrics)

    def log_folder(self, kind: str, folder: Path) -> None:
        """Log the files of a folder as an artifact."""
        artifact = self._artifact(kind)
        for file in sorted(folder.iterdir()):
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Log the remaining figures, and wait for uploads."""
        self._log_figures()
        try:
            self.run.finish(exit_code)
        except TimeoutError:
            logger.warning("W&B did not take everything within %.0f s: %s", FINISH_TIMEOUT, self.upload)

    def _open(self, tracking_id: str, mode: str) -> None:
        """Open a W&B run; parameters override W&B's own variables and settings, which override defaults."""
        import wandb  # noqa: PLC0415

        defaults = QUIET | {
            "project": PROJECT,
            "run_id": _wandb_id(tracking_id, self.number),
            "resume": "allow",
            "root_dir": str(self.folder.parent),
            "init_timeout": ONLINE_TIMEOUT,
            "finish_timeout": FINISH_TIMEOUT,
            "finish_timeout_raises": True,
        }
        chosen = {setting: self.parameters["tracking"][name] for name, setting in SETTINGS.items()}
        elsewhere = wandb.setup().settings.model_fields_set
        settings = {name: value for name, value in defaults.items() if name not in elsewhere}
        settings |= {name: value for name, value in chosen.items() if value is not None} | {"mode": mode}
        try:
            self.run = wandb.init(
                reinit="finish_previous", config=dict(flatten(self.parameters)), settings=wandb.Settings(**settings)
            )
        except wandb.Error as error:
            if mode == "offline":
                raise
            logger.warning("W&B cannot be reached, or refuses the key (%s). Tracking offline.", reason_of(error))
            wandb.teardown()  # the failed attempt still holds the id
            self._open(tracking_id, "offline")
            return
        self.upload = f"wandb sync {shlex.quote(self.run.settings.wandb_dir.rstrip('/'))}/*-{self.run.id}"
        where = self.run.url if mode == "online" else f"upload it with: {self.upload}"
        logger.info("Tracked by W&B %s; %s", mode, where)

    def _read_state(self) -> dict[str, Any]:
        """Return what an earlier process has logged; nothing if there is no file or it is damaged."""
        with suppress(FileNotFoundError, ValueError):
            state = json.loads(self.state_file.read_text())
            return state if isinstance(state, dict) else {}
        return {}

    def _log_figures(self) -> None:
        if self.figures:
            self.run.log({"images_seen": self.logged, **self._take_figures()}, step=self.logged)

    def _take_figures(self) -> dict[str, Any]:
        """Return the waiting figures as W&B's images, and forget them."""
        import wandb  # noqa: PLC0415

        taken = {}
        for name, data in self.figures.items():
            figures = data.values() if isinstance(data, dict) else [data]
            taken[name] = [wandb.Image(figure) for figure in figures]
        self.figures.clear()
        return taken

    def _artifact(self, kind: str) -> Any:
        import wandb  # noqa: PLC0415

        return wandb.Artifact(f"{kind}-{self.run.id}", type=kind)


def choose_mode(mode: str) -> str:
    """Return online, offline or disabled; warn if online is requested but there is no key."""
    if mode == "disabled":
        return mode
    import requests  # noqa: PLC0415
    import wandb  # noqa: PLC0415

    settings = wandb.setup().settings
    if mode == "auto" and "mode" in settings.model_fields_set:
        mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
    if mode not in {"auto", "online"}:
        return mode
    if settings.api_key or requests.utils.get_netrc_auth(settings.base_url):
        return "online"
    if mode == "online":
        logger.warning("tracking.mode = online, but there is no W&B key: set WANDB_API_KEY. Tracking offline.")
    return "offline"


def _wandb_id(tracking_id: str, number: int) -> str:
    """Return the id of the first, second, … training from scratch."""
    return tracking_id if number == 1 else f"{tracking_id}_{number}"
