"""The budget as a web page: one file that holds the table and the arithmetic, and asks nothing of a network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..data import INFO
from ..ep.prediction import CONSTANT, SCATTER, WIDE
from ..files import StoreError, replacing
from ..sweep import store
from . import arithmetic, table
from .answer import PROFILE
from .design import BOARDS, Design, board, designed

# Where on the page a field stands, what it is called there, and from where to where its slider goes.
FIELDS: dict[str, tuple[str, str, float, float]] = {
    "input_gain": ("network", "input gain A", 10, 10000),
    "target": ("network", "target voltage", 1e-3, 10),
    "beta": ("network", "nudge β", 0.02, 2),
    "learning_rate": ("network", "learning rate η", 1e-4, 1),
    "batch_size": ("network", "images of a step B", 1, 256),
    "adc_bits": ("converter", "bits", 1, 24),
    "adc_range": ("converter", "range, in all", 0.1, 100),
    "noise": ("read", "noise of a read", 1e-7, 1),
    "correlation": ("read", "correlation of two reads", 1e-4, 1),
    "relative_noise": ("read", "noise, share of the voltage", 1e-6, 1),
    "offset": ("read", "offsets", 1e-6, 1),
    "gain_mismatch": ("read", "gain mismatch", 1e-5, 1),
    "drift": ("read", "drift between the phases", 1e-7, 1),
    "write_noise": ("device", "error, share of the update", 1e-3, 10),
    "programming_noise": ("device", "error, share of the conductance", 1e-6, 1),
    "margin": ("bench", "margin below the limit", 1, 10),
    "most_reads": ("bench", "reads N at most", 1, 1e6),
    "images": ("bench", "training images shown", 100, 1e6),
    "read_time": ("bench", "time of a read", 1e-9, 1),
    "read_energy": ("bench", "energy of a read of a unit", 1e-15, 1e-3),
}
BOARD = BOARDS / "designer.yaml"  # what the page shows at first


def write(path: str | Path, results: str | None = None) -> Path:
    """Write the page to `path`, and return that.

    Args:
        results: address of the results folder as seen from the page, for links to the figures of stored sweeps; None:
            the folder of this checkout, relative to the page.

    Raises:
        StoreError: where there is no table, or no file can be written.
    """
    path, source = Path(path), store.results(PROFILE) / f"{table.NOTEBOOK}.nc"
    plain = table.plain_table(source)
    if not plain:
        raise StoreError(f"{source}: no such store; `make figures PROFILE={PROFILE}` computes it")
    if results is None:
        results = Path(os.path.relpath(store.results(""), path.absolute().parent)).as_posix()
    room = Path(__file__).parent
    data = json.dumps(plain | _around(plain, results), separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    parts = {
        "data": data,
        "script": (room / "page.js").read_text("utf-8"),
        "source": f"results/{PROFILE}/{source.name}",
    }
    text = (room / "page.html").read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _around(plain: dict[str, Any], results: str) -> dict[str, Any]:
    """What the page needs beside the table: constants, fields, titles, the first board, and links."""
    schema = Design.model_json_schema()["properties"]
    names = ("BIAS", "DITHER", "NEAR", "REASONS", "COMPARED", "OUTPUTS")
    constants = {"CONSTANT": CONSTANT, "SCATTER": SCATTER, "WIDE": WIDE}
    constants |= {name: getattr(arithmetic, name) for name in names}
    first = designed(board(BOARD)) if BOARD.exists() else Design()
    figures = {sweep["store"]: _figure(sweep["store"], results) for sweep in plain["sweeps"]}
    return {
        "constants": constants, "fields": [_field(name, schema[name]) for name in FIELDS],
        "defaults": Design().model_dump(mode="json"), "board": first.model_dump(mode="json"), "figures": figures,
        "titles": {name: info.title for name, info in INFO.items()},
    }  # fmt: skip


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    group, label, start, end = FIELDS[name]
    optional, values = "anyOf" in schema, schema["items"] if schema.get("type") == "array" else schema
    limits = schema["anyOf"][0] if optional else values
    return {
        "name": name, "group": group, "label": label, "unit": schema["unit"], "from": start, "to": end,
        "least": limits.get("minimum", schema.get("minimum")), "most": limits.get("maximum", schema.get("maximum")),
        "whole": limits["type"] == "integer", "list": schema.get("type") == "array", "optional": optional,
    }  # fmt: skip


def _figure(name: str, results: str) -> str | None:
    """Where the first figure of a store's notebook lies, as seen from the page."""
    profile, file = name.split("/")
    found = sorted((store.results(profile) / "figures").glob(f"{file[:2]}_*.png"))
    return f"{results}/{profile}/figures/{found[0].name}" if found else None
