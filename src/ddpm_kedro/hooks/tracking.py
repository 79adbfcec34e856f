"""Weights & Biases: what happened in a run, for comparing it with others.

Nodes and datasets know nothing of it. Catalog entries say what of them is worth tracking, by ``metadata: {track: …}``:
``history`` (rows of figures), ``pictures``, ``summary`` (figures of merit), or ``artifact`` (a file or folder).
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from ddpm_kedro.atomic import atomic_write
from ddpm_kedro.datasets.base import local_copy
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.provenance import flatten, redact, redact_text

if TYPE_CHECKING:
    from ddpm_kedro.training.resume_plan import ResumePlan

logger = logging.getLogger(__name__)
ONLINE_TIMEOUT = 20.0  # seconds to wait for the server before going on offline
FINISH_TIMEOUT = 300.0  # seconds to wait for the last uploads; what is left then can be uploaded later
# A run is figures, pictures, parameters and models: not the code, not what the terminal shows.
QUIET: dict[str, Any] = {"console": "off", "disable_code": True, "silent": True}
PROJECT = "ddpm_kedro"
SETTINGS = {"project": "project", "entity": "entity", "name": "run_name", "group": "run_group"}  # of parameters, of W&B


class Tracking:
    """Hands a training on to W&B while it goes on, and never stops it: trouble there is one warning here."""

    def __init__(self) -> None:
        self.run: Any = None
        self.marks: dict[str, tuple[str, Any]] = {}
        self.pictures: dict[str, Any] = {}
        self.logged, self.number, self.upload = 0, 1, ""
        self.folder, self.state = Path(), Path()
        self.parameters: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters and where W&B's folder lies."""
        self.parameters = redact(context.config_loader["parameters"])
        self.folder = Path(context.project_path) / context.config_loader["globals"]["data_root"] / "wandb"

    @hook_impl
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Note what is marked in the catalog."""
        self.marks, self.pictures, self.run = {}, {}, None
        for name in catalog:
            dataset: Any = catalog.get(name)
            if track := (getattr(dataset, "metadata", None) or {}).get("track"):
                self.marks[name] = (track, dataset)

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """A training begins, or goes on."""
        off = self.parameters["tracking"]["mode"] == "disabled"
        if node.short_name != "train_model" or off or not is_rank_0():
            return
        plan: ResumePlan = inputs["resume_plan"]
        if not plan.finished:
            with self._safely():
                resumed = None if plan.checkpoint is None else plan.checkpoint.images_seen
                self._begin(plan.run.record.tracking_id or plan.run.run_id, resumed)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Track what is marked."""
        track, dataset = self.marks.get(dataset_name, ("", None))
        if track == "pictures" and data:
            self.pictures[dataset_name] = data
        elif self.run is not None and track == "history":
            with self._safely():
                self._log(data)
        elif self.run is not None and track == "summary":
            with self._safely():
                self.run.summary.update({score.name: score.value for score in data.scores})
        elif self.run is not None and track == "artifact":
            with self._safely():
                artifact = self._artifact(dataset_name)
                with local_copy(dataset) as folder:
                    for file in sorted(folder.iterdir()):
                        artifact.add_file(str(file))
                self.run.log_artifact(artifact)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """The run is complete."""
        self._finish(0)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """The run failed; after a stop W&B closes by itself, at the end of the process."""
        self._finish(1)

    def _begin(self, run_id: str, resumed: int | None) -> None:
        """Start a W&B run, or resume the run of the checkpoint with so many images seen.

        Args:
            run_id: names the training.
            resumed: None where the training starts from scratch, which makes it a new W&B run.
        """
        mode = self._mode()
        if mode == "disabled":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        sys.argv[1:] = map(redact_text, sys.argv[1:])  # W&B stores the command line
        os.environ.setdefault("WANDB_DATA_DIR", str(self.folder))  # else artifacts wait for their upload elsewhere
        self.state = self.folder / f"{run_id}.json"
        state = self._read_state()
        number = state.get("number", 1) + (resumed is None and bool(state))
        self._open(run_id, number, mode)
        while resumed is None and self.run.resumed and self.run.id == _wandb_id(run_id, number):
            self.run.finish()  # the server knows it from another folder, and would drop rows that it has
            number += 1
            self._open(run_id, number, mode)
        self.number = number
        known = self.run.id == state.get("id", _wandb_id(run_id, number))
        self.logged = state.get("images_seen", resumed) if resumed is not None and known else 0
        self.run.define_metric("*", step_metric="images_seen")
        if self.logged:
            self.pictures.clear()  # they are there already
            return
        artifact = self._artifact("parameters")
        with artifact.new_file("parameters.json") as file:
            json.dump(self.parameters, file, indent=2)
        self.run.log_artifact(artifact)
        if self.pictures:
            self.run.log({"images_seen": 0, **self._take_pictures()}, step=0)

    def _mode(self) -> str:
        """Offline where there is no key; one warning where online was asked for."""
        import requests  # noqa: PLC0415
        import wandb  # noqa: PLC0415

        mode: str = self.parameters["tracking"]["mode"]
        settings = wandb.setup().settings
        if mode == "auto" and "mode" in settings.model_fields_set:
            mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
        if mode not in {"auto", "online"}:
            return mode
        if settings.api_key or requests.utils.get_netrc_auth(settings.base_url):
            return "online"
        if mode == "online":
            logger.warning("W&B is to be online, but there is no key for it: set WANDB_API_KEY. Tracking offline.")
        return "offline"

    def _open(self, run_id: str, number: int, mode: str) -> None:
        """Open a W&B run; parameters win over W&B's own variables and settings, and these over defaults."""
        import wandb  # noqa: PLC0415

        defaults = QUIET | {
            "project": PROJECT,
            "run_id": _wandb_id(run_id, number),
            "resume": "allow",
            "root_dir": str(self.folder.parent),
            "init_timeout": ONLINE_TIMEOUT,
            "finish_timeout": FINISH_TIMEOUT,
            "finish_timeout_raises": True,
        }
        given = {setting: self.parameters["tracking"][name] for name, setting in SETTINGS.items()}
        elsewhere = wandb.setup().settings.model_fields_set
        settings = {name: value for name, value in defaults.items() if name not in elsewhere}
        settings |= {name: value for name, value in given.items() if value is not None} | {"mode": mode}
        try:
            self.run = wandb.init(
                reinit="finish_previous", config=dict(flatten(self.parameters)), settings=wandb.Settings(**settings)
            )
        except wandb.Error as error:
            if mode == "offline":
                raise
            logger.warning("W&B cannot be reached, or refuses the key (%s). Tracking offline.", _first_line(error))
            wandb.teardown()  # which still holds the id for the attempt that failed
            self._open(run_id, number, "offline")
            return
        self.upload = f"wandb sync {shlex.quote(self.run.settings.wandb_dir.rstrip('/'))}/*-{self.run.id}"
        where = self.run.url if mode == "online" else f"upload it with: {self.upload}"
        logger.info("Tracked by W&B %s; %s", mode, where)

    def _log(self, history: list[dict[str, float]]) -> None:
        """Rows that W&B has not seen, each at its own number of images; pictures with the newest."""
        new = [row for row in history if row["images_seen"] > self.logged]
        for row in new:
            pictures = self._take_pictures() if row is new[-1] else {}
            self.run.log({**row, **pictures}, step=int(row["images_seen"]))
        self._remember(new[-1]["images_seen"] if new else self.logged)

    def _remember(self, images_seen: float) -> None:
        """What W&B has seen outlives a kill: a training that goes on from an earlier checkpoint repeats no point."""
        self.logged = int(images_seen)
        state = {"images_seen": self.logged, "number": self.number, "id": self.run.id}
        with atomic_write(self.state) as file:
            file.write(json.dumps(state).encode())

    def _read_state(self) -> dict[str, Any]:
        """Return what was remembered; nothing where the file is damaged."""
        with suppress(FileNotFoundError, ValueError):
            state = json.loads(self.state.read_text())
            return state if isinstance(state, dict) else {}
        return {}

    def _take_pictures(self) -> dict[str, Any]:
        import wandb  # noqa: PLC0415

        taken, self.pictures = self.pictures, {}
        pictures = {name: data if isinstance(data, dict) else {"": data} for name, data in taken.items()}
        return {name: [wandb.Image(picture) for picture in parts.values()] for name, parts in pictures.items()}

    def _artifact(self, kind: str) -> Any:
        import wandb  # noqa: PLC0415

        return wandb.Artifact(f"{kind}-{self.run.id}", type=kind)

    def _finish(self, exit_code: int) -> None:
        if self.run is None:
            return
        with self._safely():
            if self.pictures:
                self.run.log({"images_seen": self.logged, **self._take_pictures()}, step=self.logged)
            try:
                self.run.finish(exit_code)
            except TimeoutError:
                logger.warning("W&B did not take everything within %.0f s: %s", FINISH_TIMEOUT, self.upload)
        self.run = None

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """Trouble with W&B is one warning, and the end of tracking for this run."""
        try:
            yield
        except Exception as error:
            logger.warning("W&B fails (%s: %s). The run goes on untracked.", type(error).__name__, _first_line(error))
            self.run = None


def _wandb_id(run_id: str, number: int) -> str:
    """Return the id of the first, second … training from scratch."""
    return run_id if number == 1 else f"{run_id}_{number}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
