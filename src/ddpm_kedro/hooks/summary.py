"""Log a summary after a run: paths of the results, metrics, and a preview of samples."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import rich
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.kedro_adapter import location

logger = logging.getLogger(__name__)
PLACES = {
    "samples_grid": "Samples",
    "variations": "Variations",
    "inpainted": "Inpainted",
    "interpolated": "Interpolated",
    "report": "Report",
    "model": "Model",
    "metrics": "Metrics",
}
ACROSS, TILE = 5, 16  # images per row of the preview, and their size in pixels


class Summary:
    """Log a summary when all nodes succeeded."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log metrics and paths; on a terminal, also show samples."""
        if not is_rank_0():
            return
        outputs, console = pipeline.all_outputs(), rich.get_console()
        if "metrics" in outputs:
            _show_metrics(catalog.load("metrics"), console)
        if "samples" in outputs and console.is_terminal and console.color_system in {"256", "truecolor"}:
            console.print(images_as_text(catalog.load("samples").images[: 2 * ACROSS]))
        for name in [name for name in PLACES if name in outputs]:
            dataset: Any = catalog.get(name)
            logger.info("%s: %s", PLACES[name], _short(location(dataset)))
        if "report" in outputs:
            logger.info("Open the report in a browser, or show the pipeline with: kedro viz run")


def _show_metrics(metrics: Any, console: Console) -> None:
    """Print a table on a terminal, otherwise log one line per metric."""
    verdict = f"{metrics.copying['verdict']}, by each sample's nearest training image"
    if not console.is_terminal:
        for name, value, _, reference, n, note in metrics.rows():
            logger.info("%s: %s; holdout %s; n %s; %s", name, value or "none", reference or "none", n, note)
        logger.info("Copies: %s", verdict)
        return
    table = Table("metric", "samples", "holdout", "n", "", box=None, caption=verdict)
    for name, value, _, reference, n, note in metrics.rows():
        table.add_row(name, value, reference, n, note)
    console.print(table)


def images_as_text(images: NDArray[np.uint8]) -> Text:
    """Render small images side by side as text, two pixels per character.

    Args:
        images: (N, H, W, C) uint8.
    """
    tiles = [Image.fromarray(image.squeeze()).convert("RGB").resize((TILE, TILE)) for image in images]
    text = Text()
    for first in range(0, len(tiles), ACROSS):
        pixels = np.concatenate([np.asarray(tile) for tile in tiles[first : first + ACROSS]], axis=1)
        for upper, lower in zip(pixels[0::2], pixels[1::2], strict=True):
            for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
                text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
            text.append("\n")
    return text


def _short(path: str) -> str:
    """Return a path relative to the working folder if it is below it; return a URL unchanged."""
    return path.removeprefix(f"{Path.cwd()}/")
