"""`python -m epkit budget` and `python -m epkit page`: the options are the fields of a `Design`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import page
from .answer import answered
from .design import Design, board, designed


def _budget(board_file: str | None, as_json: bool, train: float | None, **given: Any) -> None:
    values = {} if board_file is None else board(board_file)
    if board_file is not None:
        designed(values, str(board_file))
    options = {name: value for name, value in given.items() if value is not None}
    answer = answered(designed(values | options), seconds=train)
    click.echo(json.dumps(answer.to_dict(), indent=1) if as_json else str(answer))


def _options() -> list[click.Parameter]:
    """A click option a field, whose text `Design` reads itself."""
    options: list[click.Parameter] = [click.Argument(["board_file"], required=False, metavar="[BOARD.yaml]")]
    for name, field in Design.model_fields.items():
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = f" ({extra['unit']})" if extra.get("unit") else ""
        text = f"{field.description}{unit}" + ("." if default in (None, 0.0) else f"; {shown} by default.")
        options.append(click.Option([f"--{name.replace('_', '-')}"], help=text[0].upper() + text[1:], metavar="TEXT"))
    return [
        *options,
        click.Option(["--train"], type=float, help="Train around the best candidate for about so many seconds."),
        click.Option(["--json", "as_json"], is_flag=True, help="All numbers, for programs."),
    ]


budget_command = click.Command(
    "budget",
    callback=_budget,
    params=_options(),
    short_help="Reads that a board needs.",
    help="Will a network learn with this board's read-outs, and how many must be averaged? Options take units (0.3mV, "
    "300u), lists are candidates (0.2,0.7), a board file holds the same names. Predicted: nothing is trained.",
)


@click.command("page", short_help="Write the read-out budget as a web page.")
@click.argument("path", type=click.Path(path_type=Path), default=Path("budget.html"))
def page_command(path: Path) -> None:
    """Write the read-out budget to PATH, a single file that works without a network."""
    click.echo(f"wrote {page.write(path)}")
