"""The last words of a run: where things are, how good they are, and a first look."""

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
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ddpm_kedro.hooks.distributed import is_rank_0
from ddpm_kedro.kedro_adapter import location

logger = logging.getLogger(__name__)
PLACES = {
    "samples_grid": "Pictures",
    "variations": "Variations",
    "inpainted": "Inpainted",
    "interpolated": "Interpolated",
    "report": "Report",
    "model": "Model",
    "metrics": "Figures",
}
ACROSS, TILE = 5, 16  # images in a row of the preview, and its pixels for each


class Summary:
    """Speaks when a pipeline has ended well."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Say where the results are; on a terminal, show some."""
        if not is_rank_0():
            return
        made, console = pipeline.all_outputs(), rich.get_console()
        if "metrics" in made:
            _tell_figures(catalog.load("metrics"), console)
        if "samples" in made and console.is_terminal and console.color_system in {"256", "truecolor"}:
            console.print(picture_in_text(catalog.load("samples").images[: 2 * ACROSS]))
        for name in [name for name in PLACES if name in made]:
            dataset: Any = catalog.get(name)
            logger.info("%s: %s", PLACES[name], _short(location(dataset)))
        if "report" in made:
            logger.info("See more: open the report in a browser, or the pipeline with: kedro viz run")


def _tell_figures(metrics: Any, console: Console) -> None:
    """A table on a terminal; elsewhere a line a figure."""
    verdict = f"{metrics.copying['verdict']}, by each sample's nearest training image"
    if not console.is_terminal:
        for name, value, _, floor, n, note in metrics.rows():
            logger.info("%s: %s; hold-out %s; n %s; %s", name, value or "none", floor or "none", n, note)
        logger.info("Copies: %s", verdict)
        return
    table = Table("figure", "samples", "hold-out", "n", "", box=None, caption=verdict)
    for name, value, _, floor, n, note in metrics.rows():
        table.add_row(name, value, floor, n, note)
    console.print(table)


def picture_in_text(images: NDArray[np.uint8]) -> Text:
    """Small images side by side, two pixels a character: a first look over SSH.

    Args:
        images: (N, H, W, C) uint8.
    """
    tiles = [Image.fromarray(image.squeeze()).convert("RGB").resize((TILE, TILE)) for image in images]
    text = Text()
    for first in range(0, len(tiles), ACROSS):
        pixels = np.concatenate([np.asarray(tile) for tile in tiles[first : first + ACROSS]], axis=1)
        for upper, lower in zip(pixels[0::2], pixels[1::2], strict=True):
            for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
                text.append("▀", Style(color=_colour(above), bgcolor=_colour(below)))
            text.append("\n")
    return text


def _colour(pixel: list[int]) -> str:
    return f"rgb({pixel[0]},{pixel[1]},{pixel[2]})"


def _short(path: str) -> str:
    """Return the path relative to where a person is, where that is shorter; a URL as it is."""
    return path.removeprefix(f"{Path.cwd()}/")
