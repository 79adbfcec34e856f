"""The pipeline and the report in a real browser.

``make screenshots`` shows the last run of the working folder instead, and saves the screenshots in docs/.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
import pytest
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from plotly.subplots import make_subplots

from ddpm_kedro.diffusion import make_schedule
from ddpm_kedro.parameters import DiffusionParameters
from ddpm_kedro.pipeline_registry import MAIN_JOB
from tests.conftest import ROOT, Project

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Shown(NamedTuple):
    """A finished run: the folder of its project, its data, and the folder of its screenshots."""

    folder: Path
    env: str
    data: Path
    screenshots: Path


@pytest.fixture(scope="module")
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A run of the ``smoke`` environment; with ``--screenshots``, the last one of the working folder."""
    if request.config.getoption("--screenshots"):
        bootstrap_project(ROOT)
        return Shown(ROOT, "local", ROOT / "data", ROOT / "docs")
    project = Project(tmp_path_factory.mktemp("viz")).adopt(request.getfixturevalue("smoke_data"))
    return Shown(project.folder, "smoke", project.data, tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def address(shown: Shown) -> Iterator[str]:
    """Kedro-Viz of that project."""
    port = 20_000 + os.getpid() % 20_000
    command = [sys.executable, "-m", "kedro", "viz", "run", "--no-browser", "--env", shown.env, "--port", str(port)]
    process = subprocess.Popen(command, cwd=shown.folder, start_new_session=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/main", timeout=60).read()
                break
            except OSError:
                assert process.poll() is None, "kedro viz ended by itself"
                assert time.monotonic() < end, "kedro viz does not answer"
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or else Playwright's own."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that reaches only this machine, and logs no error to its console."""
    opened = browser.new_page(viewport={"width": 1600, "height": 900})
    opened.set_default_timeout(120_000)  # a busy machine is no error
    opened.add_init_script("localStorage.setItem('KedroViz', JSON.stringify({showFeatureHints: false}))")
    opened.route(lambda url: "127.0.0.1" not in url and not url.startswith("file:"), lambda route: route.abort())
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" and "ERR_FAILED" not in m.text else None)
    yield opened
    opened.close()
    assert errors == []


def select(page: Page, address: str, name: str) -> None:
    """Open the panel of a node, found by its name in the list on the left."""
    page.goto(f"{address}/?pid=__default__&expandAllPipelines=true")
    page.locator(".pipeline-node__text").first.wait_for()
    page.locator(f"[data-test='node-list-tree-item--row--{name}']").first.click()
    page.locator(".pipeline-metadata__title").wait_for()


def shown_names(page: Page) -> set[str]:
    """Return the names of all nodes, once they are shown."""
    page.locator(".pipeline-node__text").first.wait_for()
    page.wait_for_timeout(1000)  # until nothing moves
    return set(page.locator(".pipeline-node__text").all_text_contents())


def keep(page: Page, shown: Shown, name: str, part: str = "body") -> None:
    """Save a screenshot for the documentation, and check that it is not empty."""
    page.add_style_tag(content="[class*='update-reminder'] {display: none}")  # offline it knows of no newer Kedro-Viz
    page.locator(part).screenshot(path=shown.screenshots / f"{name}.png")
    with Image.open(shown.screenshots / f"{name}.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_the_first_view_shows_the_pipelines_and_the_datasets_between_them(
    page: Page, address: str, shown: Shown
) -> None:
    page.goto(address)
    names = shown_names(page)
    assert set(MAIN_JOB) <= names
    assert {"training_images", "model", "samples", "metrics", "report"} <= names
    assert "train_model" not in names
    keep(page, shown, "pipeline")


def test_every_node_and_layer_is_shown(page: Page, address: str, shown: Shown) -> None:
    page.goto(f"{address}/?pid=__default__&expandAllPipelines=true")
    packages = [import_module(f"ddpm_kedro.pipelines.{name}") for name in MAIN_JOB]
    pipeline = sum((package.create_pipeline() for package in packages), Pipeline([]))
    assert {node.short_name for node in pipeline.nodes} | pipeline.all_outputs() <= shown_names(page)
    layers = page.locator(".pipeline-layer-name").all_text_contents()
    assert layers == ["raw", "model_input", "models", "model_output", "reporting"]


@pytest.mark.parametrize(
    ("name", "shown_there"),
    [
        ("image_to_image", {"model", "given_picture", "vary_images", "variations"}),
        ("inpainting", {"model", "given_picture", "given_mask", "fill_in", "inpainted"}),
        ("interpolation", {"model", "interpolate_seeds", "interpolated"}),
        ("import_model", {"model_to_import", "convert_model", "model", "imported_model"}),
    ],
)
def test_tasks_outside_the_main_job_have_their_own_view(
    name: str, shown_there: set[str], page: Page, address: str
) -> None:
    page.goto(f"{address}/?pid={name}&expandAllPipelines=true")
    assert shown_there <= shown_names(page)


def test_the_workflow_view_shows_a_successful_run(page: Page, address: str, shown: Shown) -> None:
    page.goto(address)
    shown_names(page)
    page.locator("[data-test='global-toolbar-workflow-btn']").click()
    page.get_by_text("Run execution completed successfully").wait_for()
    assert {"train_model", "samples", "report"} <= shown_names(page)
    keep(page, shown, "workflow")


@pytest.mark.parametrize(
    "name",
    [
        "training_previews",
        "samples_grid",
        "training_film",
        "denoising_trajectory",
        "nearest_neighbours",
        "filmstrip",
        "contact_sheet",
    ],
)
def test_figures_have_a_preview(name: str, page: Page, address: str) -> None:
    select(page, address, name)
    image = page.locator(".pipeline-metadata img").first
    image.wait_for()
    page.wait_for_function("() => document.querySelector('.pipeline-metadata img').naturalWidth > 100")


def test_plots_and_tables_have_a_preview(page: Page, address: str) -> None:
    for name in ("training_history", "training_plot", "loss_by_timestep_plot"):
        select(page, address, name)
        page.locator(".pipeline-metadata .js-plotly-plot").first.wait_for()
    select(page, address, "metrics")
    table = page.locator(".pipeline-metadata table").first
    table.wait_for()
    assert "KID(classifier)" in table.inner_text()


def test_the_training_nodes_show_network_code_and_parameters(page: Page, address: str, shown: Shown) -> None:
    panel = page.locator(".pipeline-metadata")
    select(page, address, "make_resume_plan")
    assert "params:optimizer" in panel.inner_text()
    select(page, address, "train_model")
    network = panel.locator("svg[id^='mermaid']").first
    network.wait_for()
    assert network.text_content().count("residual block") == 5  # two down, the middle, two up
    page.get_by_text("Expand preview").click()
    page.locator(".pipeline-mermaid-renderer--modal svg").wait_for()
    page.wait_for_timeout(1000)
    keep(page, shown, "network", ".pipeline-mermaid-renderer--modal svg")
    page.locator(".pipeline-metadata-modal__back").click()
    panel.locator(".pipeline-toggle").first.click()
    page.locator(".pipeline-metadata-code").wait_for()
    page.wait_for_function(
        "() => document.querySelector('.pipeline-metadata-code').innerText.includes('def train_model')"
    )


def test_the_report_loads_without_requests(page: Page, shown: Shown) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if request.url.startswith("http") else None)
    page.goto((shown.data / "08_reporting/report.html").as_uri())
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert requests == []
    page.set_viewport_size({"width": 1000, "height": 1750})
    keep(page, shown, "report")
    assert page.locator("img").count() == 6
    assert page.evaluate("() => [...document.images].every(image => image.naturalWidth > 50)")
    assert page.locator(".js-plotly-plot").count() == 2
    assert "KID(classifier)" in page.locator("table").nth(1).inner_text()


# Okabe and Ito (2008): distinguishable for colour-blind readers
SCHEDULES = {
    "linear": "#0072B2",
    "scaled_linear": "#E69F00",
    "cosine": "#009E73",
    "sigmoid": "#CC79A7",
    "flow": "#000000",
}


def test_the_schedules_are_plotted_for_the_documentation(page: Page, shown: Shown) -> None:
    figure = make_subplots(rows=1, cols=2, subplot_titles=["alpha", "log SNR = log(alpha² / sigma²)"])
    for name, colour in SCHEDULES.items():
        target = "velocity" if name == "flow" else "v"
        table = make_schedule(DiffusionParameters(num_timesteps=1000, schedule=name, target=target))
        log_snr = (table.alpha / table.sigma).square().clamp(min=1e-9).log()
        assert (log_snr.diff() <= 0).all()
        for column, values in ((1, table.alpha), (2, log_snr)):
            line = go.Scatter(y=values.tolist(), name=name, line_color=colour, showlegend=column == 1)
            figure.add_trace(line, row=1, col=column)
    figure.update_xaxes(title="timestep")
    figure.update_layout(template="plotly_white", height=380, width=980, margin={"t": 50, "b": 50, "r": 20})
    page.set_content(figure.to_html(include_plotlyjs=True))
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert page.locator(".js-plotly-plot .legend .traces").count() == len(SCHEDULES)
    keep(page, shown, "schedules", ".js-plotly-plot")
