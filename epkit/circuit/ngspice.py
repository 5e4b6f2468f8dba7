"""A circuit that ngspice solves: one process that stays, told by line what changes (its manual: pipe mode, `alter`).

Ideal diodes, real ones by Shockley's equation, or measured ones by their curve. Sources, conductances and nudges are
all in the deck from the beginning, so that nothing is parsed again while a network trains.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from ..ep import checks
from ..messages import short, shown
from ..reference.spice import IDEAL, MODELS, Diode, SpiceUnavailable, available
from .network import CircuitError, Matrix, Vector

OPTIONS = "reltol=1e-9 vntol=1e-10 abstol=1e-14 gmin=1e-18 itl1=2000 rshunt=1e15"
OPEN = 1e-15  # S, what a conductance of 0 is to a simulator that has no infinite resistors
# Small Schottky diode; our fit within the data sheet's bounds, at most 0.4 V at 10 mA and 0.65 V at 50 mA.
BAT42 = Diode(saturation=1e-7, emission=1.03, series=5.0)
DIODES = MODELS | {"BAT42": BAT42}


class Curve(NamedTuple):
    """A measured diode: its current (A) at rising forward voltages (V), straight in between and beyond both ends."""

    voltage: tuple[float, ...]
    current: tuple[float, ...]


def measured(path: str | Path) -> Curve:
    """The curve in a CSV file with the columns `voltage` (V), rising, and `current` (A), never falling.

    Raises:
        ValueError: for a file without them, by its name, or for none.
    """
    path = checks.file("path", path)
    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"path = {path}: no table of comma-separated values ({short(error)})") from None
    if missing := {"voltage", "current"} - set(table):
        raise ValueError(
            f"path = {path}: has no column {', '.join(sorted(missing))}: must have voltage (V) and current (A)"
        )
    columns = [pd.to_numeric(table[name], errors="coerce").to_numpy(float) for name in ("voltage", "current")]
    if len(table) < 2 or not np.isfinite(columns).all():
        raise ValueError(f"path = {path}: must have two lines or more, all with finite numbers")
    if (np.diff(columns[0]) <= 0).any() or (np.diff(columns[1]) < 0).any():
        raise ValueError(f"path = {path}: voltage must rise from line to line, and current must not fall")
    return Curve(*(tuple(column.tolist()) for column in columns))


class SpiceCircuit:
    """A deep resistive network's layout in ngspice; `close` ends the process, as does leaving a `with` block.

    Args:
        sizes: units per layer, n_0 … n_L, hidden ones even.
        diode: "ideal", a name in `DIODES`, parameters of Shockley's equation, or a `measured` curve.

    Raises:
        ValueError: for other sizes or diodes. SpiceUnavailable: without ngspice.
    """

    limits = (0.0, 1e3)

    def __init__(self, sizes: Sequence[int], diode: Literal["ideal"] | str | Diode | Curve = "ideal") -> None:
        self.sizes = checks.sizes(sizes)
        if any(n % 2 for n in self.sizes[1:-1]):
            raise ValueError(f"sizes = {self.sizes}: hidden widths must be even, half of the diodes point each way")
        if isinstance(diode, str):
            checks.choice("diode", diode, ("ideal", *DIODES))
        elif not isinstance(diode, Diode | Curve):
            raise ValueError(f"diode = {shown(diode)}: must be 'ideal', a name, a Diode or a measured Curve")
        if not available():
            raise SpiceUnavailable("ngspice is not installed: it is the package `ngspice` of Debian, conda-forge")
        self._process = subprocess.Popen(
            ["ngspice", "-p"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={k: v for k, v in os.environ.items() if k != "DISPLAY"}, start_new_session=True,  # apart from Ctrl-C
        )  # fmt: skip
        self._changes = ["alter v0_0 = 0.0"]  # one to begin with: nothing has been read
        self._asked, self._values = 0, dict[str, float]()
        self._voltages: list[Vector] = []
        with TemporaryDirectory() as folder:
            deck = Path(folder) / "circuit.cir"
            deck.write_text("\n".join(_deck(self.sizes, DIODES.get(diode, diode) if isinstance(diode, str) else diode)))
            self._ask("set ngbehavior=none", "set numdgt=15", f"source {deck}")
        nodes = [[f"v(v{layer}_{j})" for j in range(n)] for layer, n in enumerate(self.sizes)][1:]
        self._print = [f"print {' '.join(layer)}" for layer in nodes]

    def __enter__(self) -> SpiceCircuit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def set_conductances(self, weights: Sequence[Matrix], biases: Sequence[Vector]) -> None:
        for layer, w in enumerate(weights):
            for (i, j), g in np.ndenumerate(w):
                self._alter(f"r{layer}_{i}_{j}", 1 / max(g, OPEN))
        for layer, b in enumerate(biases, 1):
            for j, current in enumerate(b):
                self._alter(f"i{layer}_{j}", current)

    def apply(self, voltages: Vector) -> None:
        for i, v in enumerate([*voltages, *-voltages]):
            self._alter(f"v0_{i}", v)

    def nudge(self, beta: float, target: Vector | None) -> None:
        for j in range(self.sizes[-1]):
            self._alter(f"@gnudge_{j}[gain]", beta)
            self._alter(f"inudge_{j}", 0.0 if target is None else beta * target[j])

    def _alter(self, what: str, value: float) -> None:
        """Note a change for ngspice, which is told of it before the next reading."""
        if self._values.get(what, 0.0) != value:
            self._changes.append(f"alter {what} = {float(value)!r}")
            self._values[what] = value

    def read(self) -> list[Vector]:
        if self._changes:  # else it would find the same voltages again
            self._voltages = self._solved(self._ask("destroy all", *self._changes, "op", *self._print))
            self._changes = []
        return list(self._voltages)

    def _solved(self, printed: str) -> list[Vector]:
        found = dict(re.findall(r"^(v\(v\d+_\d+\)) = (\S+)$", printed, re.MULTILINE))
        try:
            if "Error:" in printed:
                raise ValueError
            return [np.array([float(found[node]) for node in line.split()[1:]]) for line in self._print]
        except (KeyError, ValueError):
            raise CircuitError(f"ngspice found no operating point: {short(printed[-500:])}") from None

    def _ask(self, *commands: str) -> str:
        """What ngspice prints until it has done the commands."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        printed: list[str] = []
        self._asked += 1
        done = f"done-{self._asked}."  # numbered, for what an interrupted call left is still to come
        try:
            stdin.write("\n".join((*commands, f"echo {done}", "")))
            stdin.flush()
            while (line := stdout.readline()) and done not in line:
                printed.append(line)
        except (OSError, ValueError) as error:
            raise CircuitError(f"ngspice is gone: {short(error)}") from None
        if not line:
            raise CircuitError(f"ngspice ended by itself: {short(''.join(printed)[-500:])}")
        return "".join(printed)


def _deck(sizes: Sequence[int], diode: str | Diode | Curve) -> Iterator[str]:
    """The netlist, its values still to be set; node v1_3 is unit 3 of layer 1, counted from 0."""
    yield f"* deep resistive network {'-'.join(map(str, sizes))}"
    rows = [2 * sizes[0], *sizes[1:]]
    yield from (f"v0_{i} v0_{i} 0 0" for i in range(rows[0]))
    for layer, (pre, post) in enumerate(pairwise(rows)):
        yield from (f"r{layer}_{i}_{j} v{layer}_{i} v{layer + 1}_{j} 1" for i in range(pre) for j in range(post))
        yield from (f"i{layer + 1}_{j} 0 v{layer + 1}_{j} 0" for j in range(post))
    for layer, n in enumerate(sizes[1:-1], 1):
        for j in range(n):  # current flows from low to high, never back: the first half keeps v >= 0
            node = f"v{layer}_{j}"
            low, high = ("0", node) if j < n // 2 else (node, "0")
            forward = f"-v({node})" if low == "0" else f"v({node})"
            if isinstance(diode, Diode):
                yield f"d{layer}_{j} {low} {high} unit"
            elif isinstance(diode, Curve):
                points = ",".join(f"{v!r},{i!r}" for v, i in zip(*diode, strict=True))
                yield f"b{layer}_{j} {low} {high} i=pwl({forward},{points})"
            else:
                yield f"b{layer}_{j} {low} {high} i={IDEAL!r}*max({forward},0)"
    if isinstance(diode, Diode):
        yield f".model unit D(IS={diode.saturation!r} N={diode.emission!r} RS={diode.series!r})"
    last = len(sizes) - 1
    for j in range(sizes[-1]):  # beta (target - v): a resistor could not be negative
        yield f"gnudge_{j} v{last}_{j} 0 v{last}_{j} 0 0"
        yield f"inudge_{j} 0 v{last}_{j} 0"
    yield from (f".options {OPTIONS}", ".end", "")
