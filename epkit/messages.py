"""What is said to people: one plain line for each thing that is wrong, with the nearest right name."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ParameterError(ValueError):
    """Parameters that make no experiment: one line for each fault, with its place, field, value and what is allowed."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the lines alone, for where they were noticed says nothing about what is wrong."""
        return [f"{type(self).__name__}: {self}"]


def hint(name: object, names: Iterable[str]) -> str:
    """The nearest right name, or all that there are."""
    names = list(names)
    near = get_close_matches(str(name), names, 1)
    return f"did you mean {near[0]}?" if near else f"there are {short(', '.join(names))}"


def short(text: object, most: int = 160) -> str:
    """A text, of an error for example, in one line that isn't long."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(text).split())) or "''"
    return line if len(line) <= most else f"{line[:most]}…"


def shown(value: object) -> str:
    """A value in one line that isn't long, whatever it is."""
    try:
        return short(reprlib.repr(value), 80)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"{type(value).__name__} of very many digits"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A table in Markdown, a line a row; `align` has an r for each column of numbers, and an l for each other one.

    Unlike pandas' `to_markdown` it pads no cell, so that one number that changes is one line of a diff.
    """
    rule = ["---:" if letter == "r" else "---" for letter in align.ljust(len(columns))]
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [columns, rule, *cells])
