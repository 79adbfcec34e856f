"""Log a summary after a run: verdicts, metrics, a preview of samples, and the paths of the results."""

import logging
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import rich
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from ddpm_kedro.files import shown_path
from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.kedro_adapter import location
from ddpm_kedro.run_log import RUN_LOG

if TYPE_CHECKING:
    from ddpm_kedro.metrics.table import Metrics

logger = logging.getLogger(__name__)
PLACES = {
    "model": "Model",
    "samples_grid": "Samples",
    "variations": "Variations",
    "inpainted": "Inpainted",
    "interpolated": "Interpolated",
    "report": "Report",
    "contact_sheet": "Contact sheet",
    "ingestion_report": "Ingestion report",
}
IN_REPORT = {"contact_sheet", "ingestion_report"}  # without a line of their own if the run made the report
UNKNOWN = "cannot be judged"  # a verdict that begins so ends with a reason; other verdicts end with values of the table
WIDTH = 70  # columns of a sentence: 80 without the time
ACROSS, TILE = 5, 16  # images of the preview, and their size in pixels


class Summary:
    """Log a summary when all nodes succeeded."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log verdicts, metrics and paths; on a terminal, also show samples."""
        if not is_rank_0():
            return
        outputs, console = pipeline.all_outputs(), rich.get_console()
        if "samples" in outputs and console.is_terminal and console.color_system in {"256", "truecolor"}:
            console.print(images_as_text(catalog.load("samples").images[:ACROSS]))
        if {"training_history", "model"} <= outputs:
            _log_training(catalog)
        if "metrics" in outputs:
            _log_metrics(catalog.load("metrics"))
        shown = outputs - IN_REPORT if "report" in outputs else outputs
        for name in [name for name in PLACES if name in shown]:
            dataset: Any = catalog.get(name)
            details = f" (details: {RUN_LOG.name})" if name == "report" else ""
            logger.info("%s: %s%s", PLACES[name], shown_path(location(dataset)), details)


def _log_training(catalog: DataCatalog) -> None:
    """Log the verdict on the training."""
    from ddpm_kedro.training.verdict import training_verdict  # noqa: PLC0415  torch takes seconds

    history, model, images = (catalog.load(name) for name in ("training_history", "model", "training_images"))
    verdict = training_verdict(history, model.made_by.parameters, len(images))
    _log_sentence(f"Training: {verdict.short}")
    _log_sentence(verdict.command)
    for sentence in verdict.sentences:
        logger.debug("%s", sentence)


def _log_metrics(metrics: "Metrics") -> None:
    """Log the verdict on the samples, warnings, and a table with one column per metric."""
    if metrics.verdict:
        words, _, numbers = metrics.verdict.partition(":")
        _log_sentence(f"Samples: {metrics.verdict if words == UNKNOWN else words}")
        logger.debug("Samples: %s:%s", words, numbers)
    for warning in metrics.warnings:
        logger.warning("%s", warning)
    for line in _table(metrics):
        logger.info("%s", line)
    for name, value, _, holdout, n, note in metrics.rows():
        logger.debug("%s: %s; holdout %s; n %s; %s", name, value or "none", holdout or "none", n, note)
    level = logging.DEBUG if metrics.copying["verdict"].startswith("no ") else logging.WARNING
    logger.log(level, "Copies, by each sample's nearest training image: %s", metrics.copying["verdict"])


def _log_sentence(text: str) -> None:
    """Log a sentence, without a terminal in lines that fit 80 columns with the time; rich wraps lines on a terminal."""
    lines = wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    for line in filter(None, [text] if rich.get_console().is_terminal else lines):
        logger.info("%s", line)


def _table(metrics: "Metrics") -> list[str]:
    """Return the scores as lines of text, one column per metric; the notes instead if there is no value."""
    if all(score.value is None for score in metrics.scores):
        notes: dict[str, list[str]] = {}
        for score in metrics.scores:
            notes.setdefault(score.note, []).append(score.name.partition("(")[0])
        return [f"{', '.join(names)}: {note}" for note, names in notes.items()]
    columns: list[tuple[str, ...]] = [(metrics.extractor, "samples", "holdout")]
    for score in metrics.scores:
        values = ("–" if value is None else f"{value:.3g}" for value in (score.value, score.holdout_value))
        columns.append((score.name.partition("(")[0].partition(" ")[0], *values))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for first, *rest in zip(*columns, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines


def images_as_text(images: NDArray[np.uint8]) -> Text:
    """Render small images side by side as text, two pixels per character.

    Args:
        images: (N, H, W, C) uint8.
    """
    tiles = [Image.fromarray(image.squeeze()).convert("RGB").resize((TILE, TILE)) for image in images]
    pixels = np.concatenate([np.asarray(tile) for tile in tiles], axis=1)
    text = Text()
    for upper, lower in zip(pixels[0::2], pixels[1::2], strict=True):
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text
