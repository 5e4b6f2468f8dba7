"""For all tests: shapes are checked at run time, no absent data set goes unnoticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import counts
import pytest
import torch
from counts import counted  # noqa: F401 (a fixture for all)
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

collect_ignore = ["corpus"]  # its notebooks are broken on purpose, not nbval's to run

# The tests' tensors are small: threads would only wait for one another, the more so on a busy machine.
torch.set_num_threads(1)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOT_RUN = {"full_data": "of data sets that can't be had here", "ngspice": "against ngspice", "chromium": "in a browser"}
TENSOR_MODULES = (
    "ep.networks",
    "ep.readout",
    "ep.learning",
    "ep.probe",
    "ep.training",
    "ep.engine",
    "ep.optimisers",
    "networks.convolutional",
    "networks.hopfield",
    "data",
    "reference.solutions",
)
install_import_hook([f"epkit.{name}" for name in TENSOR_MODULES], "beartype.beartype")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Not of the session: while playwright runs, no test of that process can run an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = os.getuid() != 0  # there is none for root
        yield playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=sandbox)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=5, help="how often the fault tests try what they try at random")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full_data(*names): needs these data sets, without network")
    config.addinivalue_line("markers", "ngspice: needs the circuit simulator ngspice")
    config.addinivalue_line("markers", "chromium: needs a browser, Chromium or Chrome")


def pytest_runtest_setup(item: pytest.Item) -> None:
    from epkit import data
    from epkit.reference import spice

    lacking = pytest.fail if os.environ.get("EPKIT_COMPLETE") else pytest.skip
    if item.get_closest_marker("ngspice") and not spice.available():
        lacking("ngspice is not installed (package `ngspice`): no circuit simulator to compare with")
    if item.get_closest_marker("chromium") and not CHROMIUM:
        lacking("no Chromium or Chrome is installed (package `chromium`): no browser to look with")
    for marker in item.iter_markers("full_data"):
        for name in marker.args:
            if reason := data.available(name):
                pytest.skip(f"{name}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what was counted, and names what was not tested for want of data or a program, lest it be thought so."""
    counts.report(terminalreporter)
    for marker, what in NOT_RUN.items():
        missed = [test for test in terminalreporter.stats.get("skipped", []) if marker in test.keywords]
        if missed:
            terminalreporter.section(f"not run: tests {what}")
        for test in missed:
            terminalreporter.line(f"{test.nodeid}\n    {test.longrepr[2].removeprefix('Skipped: ')}")
