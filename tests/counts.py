"""How many bad inputs and faults were tried, by kind and outcome: a table after the tests, and pages of the docs.

python tests/counts.py    renew the tables of docs/ from results/counts/
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from epkit.files import renewed
from epkit.messages import markdown

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "results" / "counts"
MARKS = "<!-- counts: written by `make faults` -->", "<!-- end of counts -->"
FAILED = "NOT WELL: "  # begins the outcomes that should not be


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`counted(kind, outcome)` adds one, or `n`, to the table of the test's module, or to that which it names."""
    table = getattr(request.module, "TABLE", request.module.__name__.removeprefix("test_"))

    def count(kind: str, outcome: str, n: int = 1) -> None:
        # the one thing of a test that also comes back from another process, where tests run in several
        request.node.user_properties.append(("tried", (table, kind, outcome, n)))

    return count


def report(terminal: pytest.TerminalReporter) -> None:
    """Print the tables; where EPKIT_COUNTS names a folder, also write each to `<folder>/<module>.json`."""
    counts: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for test in (test for tests in terminal.stats.values() for test in tests):
        # of the three reports of a test, the last has all
        for name, tried in getattr(test, "user_properties", ()) if getattr(test, "when", "") == "teardown" else ():
            if name == "tried":
                table, kind, outcome, n = tried
                counts[table][kind, outcome] += n
    for name, table in counts.items():
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, outcome), number in sorted(table.items()):
            by_kind.setdefault(kind, {})[outcome] = number
        terminal.section(f"tried: {name.replace('_', ' ')}")
        for kind, outcomes in by_kind.items():
            terminal.line(f"{kind}: " + ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items()))
        if folder := os.environ.get("EPKIT_COUNTS"):
            file = Path(folder, f"{name}.json")
            file.parent.mkdir(parents=True, exist_ok=True)
            # what was not tried this time, for only some tests ran, stays as it was
            before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            file.write_text(json.dumps(before | by_kind, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def page(counts: Path) -> str:
    """The page of the documentation whose table is that of a file of counts."""
    rows = []
    for kind, outcomes in json.loads(counts.read_text(encoding="utf-8")).items():
        well = sum(number for outcome, number in outcomes.items() if not outcome.startswith(FAILED))
        how = "; ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items())
        rows.append([kind, f"{sum(outcomes.values()):,}", f"{well:,}", how])
    table = markdown(("what", "tried", "ended well", "how"), rows, "lrrl")
    return renewed(ROOT / "docs" / f"{counts.stem}.md", MARKS, table)


if __name__ == "__main__":
    for counts in KEPT.glob("*.json"):
        (ROOT / "docs" / f"{counts.stem}.md").write_text(page(counts), encoding="utf-8")
