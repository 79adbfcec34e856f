"""The pipeline and the report as a person sees them, in a real browser."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ddpm_kedro.pipeline_registry import register_pipelines
from tests.conftest import Project

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, smoke_data: Path) -> Project:
    """A project with a finished run."""
    return Project(tmp_path_factory.mktemp("viz")).adopt(smoke_data)


@pytest.fixture(scope="module")
def address(shown: Project) -> Iterator[str]:
    """Kedro-Viz of that project."""
    port = 20_000 + os.getpid() % 20_000
    command = [sys.executable, "-m", "kedro", "viz", "run", "--no-browser", "--env", "smoke", "--port", str(port)]
    process = subprocess.Popen(command, cwd=shown.folder, start_new_session=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/api/main", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, "kedro viz ended by itself"
                time.sleep(0.2)
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
    """A page that reaches nothing but this machine, and on whose console there must be no error."""
    opened = browser.new_page(viewport={"width": 1600, "height": 900})
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
    page.goto(f"{address}/?pid=__default__")
    page.locator(".pipeline-node__text").first.wait_for()
    page.locator(f"[data-test='node-list-tree-item--row--{name}']").first.click()
    page.locator(".pipeline-metadata__title").wait_for()


def test_every_node_is_drawn(page: Page, address: str) -> None:
    page.goto(address)
    page.locator(".pipeline-node__text").first.wait_for()
    drawn = set(page.locator(".pipeline-node__text").all_text_contents())
    pipeline = register_pipelines()["__default__"]
    assert {node.name for node in pipeline.nodes} | pipeline.all_outputs() <= drawn


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
def test_pictures_are_shown(name: str, page: Page, address: str) -> None:
    select(page, address, name)
    image = page.locator(".pipeline-metadata img").first
    image.wait_for()
    page.wait_for_function("() => document.querySelector('.pipeline-metadata img').naturalWidth > 100")


def test_plots_and_tables_are_shown(page: Page, address: str) -> None:
    for name in ("training_history", "training_plot", "loss_by_timestep_plot"):
        select(page, address, name)
        page.locator(".pipeline-metadata .js-plotly-plot").first.wait_for()
    select(page, address, "metrics")
    table = page.locator(".pipeline-metadata table").first
    table.wait_for()
    assert "KID(classifier)" in table.inner_text()


def test_the_training_node_shows_code_and_parameters(page: Page, address: str) -> None:
    select(page, address, "train_model")
    panel = page.locator(".pipeline-metadata")
    assert "params:optimizer" in panel.inner_text()
    panel.locator(".pipeline-toggle").first.click()
    page.locator(".pipeline-metadata-code").wait_for()
    page.wait_for_function(
        "() => document.querySelector('.pipeline-metadata-code').innerText.includes('def train_model')"
    )


def test_the_report_needs_nothing_else(page: Page, shown: Project) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if request.url.startswith("http") else None)
    page.goto((shown.data / "08_reporting/report.html").as_uri())
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert requests == []
    assert page.locator("img").count() == 6
    assert page.evaluate("() => [...document.images].every(image => image.naturalWidth > 50)")
    assert page.locator(".js-plotly-plot").count() == 2
    assert "KID(classifier)" in page.locator("table").nth(1).inner_text()
