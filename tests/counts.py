"""How many bad inputs and faults were tried, by kind and outcome: a table after the tests, and a file for the docs."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

COUNTS: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`counted(kind, outcome)` adds one to the table of the test's module."""
    table = COUNTS[request.module.__name__.removeprefix("test_")]

    def count(kind: str, outcome: str) -> None:
        table[kind, outcome] += 1

    return count


def report(terminal: pytest.TerminalReporter) -> None:
    """Print the tables; where EPKIT_COUNTS names a folder, also write each to `<folder>/<module>.json`."""
    for name, table in COUNTS.items():
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, outcome), number in sorted(table.items()):
            by_kind.setdefault(kind, {})[outcome] = number
        terminal.section(f"tried: {name.replace('_', ' ')}")
        for kind, outcomes in by_kind.items():
            terminal.line(f"{kind:<40}" + ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items()))
        if folder := os.environ.get("EPKIT_COUNTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{name}.json").write_text(json.dumps(by_kind, indent=1) + "\n", encoding="utf-8")
