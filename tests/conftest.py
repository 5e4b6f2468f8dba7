"""For all tests: shapes are checked at run time, no absent data set goes unnoticed."""

import pytest
import torch
from jaxtyping import install_import_hook

# The tests' tensors are small: threads would only wait for one another, the more so on a busy machine.
torch.set_num_threads(1)
TENSOR_MODULES = ("networks", "uncertainty", "learning", "native", "datasets")
install_import_hook([f"epkit.{name}" for name in TENSOR_MODULES], "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full_data(*names): needs these data sets, without network")


def pytest_runtest_setup(item: pytest.Item) -> None:
    from epkit import datasets

    for marker in item.iter_markers("full_data"):
        for name in marker.args:
            if reason := datasets.available(name):
                pytest.skip(f"{name}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what was not tested for want of data: a green run without data is not the whole truth."""
    missed = [test for test in terminalreporter.stats.get("skipped", []) if "full_data" in test.keywords]
    if missed:
        terminalreporter.section("not run: tests of data sets that can't be had here")
        for test in missed:
            terminalreporter.line(f"{test.nodeid}\n    {test.longrepr[2].removeprefix('Skipped: ')}")
