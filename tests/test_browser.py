"""What a reader of a notebook sees: JupyterLab in a real Chromium. Screenshots are kept in build/browser/."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from playwright.sync_api import Page, expect

from epkit.files import CHECKOUT

pytestmark = pytest.mark.chromium
SCREENSHOTS = CHECKOUT / "build" / "browser"
PATIENCE = 600.0  # seconds, of a busy machine: each wait ends as soon as what it waits for is there
CRITICAL_LIMIT = "02_critical_limit"
# Cells out of view exist too, so that all of them can be looked at; and no questions.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
READY = """async () => {
    await jupyterapp.restored;
    await jupyterapp.allPluginsActivated;
    await jupyterapp.shell.currentWidget.sessionContext.ready;
    return true;
}"""
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture
def checkout(tmp_path):
    """A copy to edit notebooks in and to compute in."""
    made = shutil.ignore_patterns(".*", "__pycache__", "build", "data", "digits", "mine")
    folder = shutil.copytree(CHECKOUT, tmp_path / "checkout", ignore=made)
    shutil.rmtree(folder / "results" / "smoke", ignore_errors=True)  # that there is something to compute
    return folder


@pytest.fixture
def server(checkout):
    """The address of a JupyterLab of its own, as it is without anybody's settings."""
    own = checkout.parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "EPKIT_"))}
    environment |= {f"JUPYTER_{name}_DIR": str(own / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"IPYTHONDIR": str(own / "ipython"), "PYTHONPATH": str(checkout), "EPKIT_OFFLINE": "1"}
    for name, values in SETTINGS.items():
        file = own / "CONFIG" / "lab" / "user-settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += [f"--ServerApp.root_dir={checkout}", "--IdentityProvider.token=", "--expose-app-in-browser"]
    with open(own / "log", "wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as running:
        try:
            deadline = time.monotonic() + PATIENCE
            while not list((own / "RUNTIME").glob("jpserver-*-open.html")):  # written last
                said = (own / "log").read_text()
                assert running.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            (facts,) = (own / "RUNTIME").glob("jpserver-*.json")
            yield json.loads(facts.read_text())["url"]
        finally:
            running.terminate()


@pytest.fixture
def lab(server, browser, request):
    """`lab(name)` opens a notebook; a screenshot is kept of how the test ends."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()

    def opened(name: str) -> Notebook:
        page.goto(f"{server}lab/tree/notebooks/{name}.ipynb")
        # sooner, what JupyterLab still sets up closes the menus again, runs no cell, or knows no widget
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.wait_for_function(READY)
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        return Notebook(page)

    yield opened
    Notebook(page).screenshot(f"{request.node.name}.end")
    context.close()


class Notebook:
    """A notebook open in JupyterLab, used by mouse and keyboard."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def write(self, line: str) -> None:
        """Put a `name = value` line into the parameters cell, in place of the one that sets the name there."""
        name = line.split(" = ")[0]
        cell = self.page.locator(".jp-CodeCell").first
        cell.locator(".cm-line", has_text=f"{name} = ").first.click()
        self.page.keyboard.press("Home")
        self.page.keyboard.press("Shift+End")
        self.page.keyboard.insert_text(line)
        expect(cell).to_contain_text(line)

    def choose(self, menu: str, command: str) -> None:
        for name in (menu, command):
            self.page.get_by_role("menuitem", name=name, exact=True).click()

    def run_all(self) -> None:
        """Run > Run All Cells, after all outputs were cleared; `finished` waits for the end."""
        self.choose("Edit", "Clear Outputs of All Cells")
        self.choose("Run", "Run All Cells")

    def finished(self) -> None:
        expect(self.page.locator(".jp-CodeCell .jp-InputPrompt").first).to_have_text(re.compile(r"\[\d+\]:"))
        self.page.wait_for_function("!document.body.innerText.includes('[*]:')")

    def figures(self) -> list[str]:
        """What all figures are made of; the first one is scrolled to."""
        images = self.page.locator(".jp-OutputArea-output img")
        images.first.scroll_into_view_if_needed()
        return images.evaluate_all("images => images.map(image => image.src)")

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        print(f"{SCREENSHOTS.relative_to(CHECKOUT)}/{name}.png")


def test_a_notebook_runs_and_a_parameter_changes_its_figures(lab):
    notebook = lab(CRITICAL_LIMIT)
    committed = notebook.figures()
    notebook.write('profile = "smoke"')
    notebook.run_all()
    progress = notebook.page.locator(".jp-OutputArea-output", has_text="runs done").first
    progress.scroll_into_view_if_needed()
    notebook.screenshot("progress")
    notebook.finished()
    expect(progress).to_contain_text("16 runs done, 0 failed, 0 waiting")
    as_profile = notebook.figures()
    notebook.screenshot("as_the_profile_has_it")
    assert len(as_profile) == len(committed) == 5
    assert not set(as_profile) & set(committed)
    notebook.write("sigma = [0.0, 1e-3, 1e-1]")
    notebook.run_all()
    notebook.finished()
    expect(notebook.page.locator(".jp-OutputArea-output", has_text="Not as in params/smoke: sigma.")).to_have_count(1)
    assert not set(notebook.figures()) & set(as_profile)
    notebook.screenshot("with_another_parameter")


def test_a_wrong_parameter_is_one_message(lab):
    notebook = lab(CRITICAL_LIMIT)
    notebook.write("seeds = -1")
    notebook.run_all()
    notebook.finished()
    cell = notebook.page.locator(".jp-CodeCell", has_text="epkit.notebook(")
    cell.scroll_into_view_if_needed()
    notebook.screenshot("wrong_parameter")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text(
        ["ParameterError: parameters: seeds = -1: Input should be greater than or equal to 1"]
    )
    assert not notebook.page.locator(".jp-OutputArea-output img").count(), "no figure of other parameters is left"


def test_a_slider_moves_the_answer(lab):
    notebook = lab("15_budget")
    notebook.run_all()
    notebook.finished()
    slider = notebook.page.get_by_role("slider").first
    slider.scroll_into_view_if_needed()
    output = notebook.page.locator(".jp-OutputArea-output", has=slider)
    sentence, picture = output.locator(".widget-html-content").last, output.locator("img")
    before = sentence.inner_text(), picture.get_attribute("src")
    notebook.screenshot("sliders")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    expect(sentence).not_to_have_text(before[0])
    expect(picture).not_to_have_attribute("src", before[1])
    notebook.screenshot("sliders_moved")
