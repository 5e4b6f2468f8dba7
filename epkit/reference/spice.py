"""A network as a circuit that another simulator solves: SPICE netlists, and their solution by ngspice.

One member and one input vector become one netlist: sources hold the doubled, amplified input, a resistor stands for
every conductance > 0, a current source for every bias, a diode for every hidden unit; the nudge is the conductance beta
to the target voltage. Nothing here shares code with `relax`: Kirchhoff's laws are ngspice's, not ours.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..ep.networks import DeepResistiveNetwork

Vector = Float[Tensor, " _n"]
THERMAL = 0.025865  # V, k T / q at 300.15 K, the temperature that SPICE assumes
# Conductance of a conducting ideal diode, in units of W: its drop is the node's current over this.
IDEAL = 1e9


class Diode(NamedTuple):
    """Shockley's equation with a series resistance: v = emission THERMAL ln(1 + i/saturation) + series i."""

    saturation: float  # IS, A
    emission: float  # N
    series: float  # RS, ohm

    def scaled(self, factor: float) -> Diode:
        """The same diode with `factor` times the forward voltage at every current."""
        return self._replace(emission=factor * self.emission, series=factor * self.series)

    def forward(self, current: float) -> float:
        """Forward voltage (V) at `current` (A)."""
        return self.emission * THERMAL * log(1 + current / self.saturation) + self.series * current

    def slope(self, current: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Small-signal conductance (S) at `current` (A): 0 where nothing but leakage flows back."""
        junction = (current + self.saturation).clamp_min(0) / (self.emission * THERMAL)
        return junction / (1 + self.series * junction)


# A small-signal silicon diode, with the values that its makers' models share.
MODELS = {"1N4148": Diode(saturation=2.52e-9, emission=1.752, series=0.568)}


class SpiceUnavailable(RuntimeError):
    """ngspice isn't installed; the message says how to get it."""


class SpiceError(RuntimeError):
    """ngspice found no operating point; the message ends with what it printed."""


def netlist(
    net: DeepResistiveNetwork, x: Vector, member: int = 0, target: Vector | None = None, beta: float = 0.0,
    diode: str = "ideal", *, scale: float = 1.0, siemens: float = 1.0,
) -> str:  # fmt: skip
    """The circuit of one member and one input vector, as a netlist whose node voltages any SPICE lists.

    Node v1_3 is the third unit of layer 1, v0_1 … the doubled inputs; R0_2_3 joins v0_2 to v1_3.

    Args:
        x: input (n_0,); target: desired output voltages (n_L,) (V), with beta (S, either sign) the nudge.
        diode: "ideal", a resistance of almost 0 that conducts one way, or a name in `MODELS`.
        scale: factor on a real diode's forward voltage: on emission coefficient and series resistance.
        siemens: conductance that W = 1 stands for (S); biases and beta scale with it. It leaves the voltages of ideal
            diodes as they are, but sets the current, and with it the forward voltage, of real ones.

    Raises:
        ValueError: for a diode without a model, and for a target without beta or beta without target.
    """
    if diode != "ideal" and diode not in MODELS:
        raise ValueError(f"diode = {diode!r}: allowed are 'ideal', {', '.join(map(repr, MODELS))}")
    if (target is None) != (beta == 0.0):
        raise ValueError(f"beta = {beta}: a nudge takes a target and a beta other than 0, a free phase neither")
    lines = [f"* deep resistive network {'-'.join(map(str, net.sizes))}, {diode} diodes, beta = {beta}"]
    lines += _sources_and_resistors(net, x, member, siemens)
    lines += _diodes(net.sizes, diode, scale, siemens)
    if target is not None:  # a conductance beta to the target: as sources, for SPICE may refuse a negative resistor
        last = len(net.sizes) - 1
        for j, t in enumerate(target.tolist(), 1):
            lines.append(f"Gnudge_{j} v{last}_{j} 0 v{last}_{j} 0 {siemens * beta!r}")
            lines.append(f"Inudge_{j} 0 v{last}_{j} {siemens * beta * t!r}")
    # rshunt: a unit that has lost every conductance stays at 0 V
    lines += [f".options reltol=1e-9 vntol=1e-10 abstol=1e-14 gmin=1e-18 itl1=2000 rshunt={1e15 / siemens!r}"]
    return "\n".join([*lines, ".op", ".end", ""])


def _sources_and_resistors(net: DeepResistiveNetwork, x: Vector, member: int, siemens: float) -> Iterator[str]:
    """The lines of what a free phase without diodes consists of: inputs (V), conductances, and biases (A)."""
    amplified = [net.input_gain * v for v in x.tolist()]
    for i, v in enumerate([*amplified, *(-v for v in amplified)], 1):
        yield f"V0_{i} v0_{i} 0 {v!r}"
    for layer, w in enumerate(net.weights):
        for i, row in enumerate(w[member].tolist(), 1):
            for j, g in enumerate(row, 1):
                if g > 0:
                    yield f"R{layer}_{i}_{j} v{layer}_{i} v{layer + 1}_{j} {1 / (siemens * g)!r}"
    for layer, b in enumerate(net.biases, 1):
        for j, current in enumerate(b[member].tolist(), 1):
            if current:
                yield f"I{layer}_{j} 0 v{layer}_{j} {siemens * current!r}"


def _diodes(sizes: Sequence[int], diode: str, scale: float, siemens: float) -> Iterator[str]:
    """The lines of the hidden units' diodes: the first half of a layer keeps v >= 0, the second v <= 0."""
    for layer, n in enumerate(sizes[1:-1], 1):
        for j in range(1, n + 1):
            node = f"v{layer}_{j}"
            low, high = ("0", node) if j <= n // 2 else (node, "0")  # current flows from low to high, never back
            if diode == "ideal":
                drop = f"v({node})" if low == node else f"-v({node})"
                yield f"B{layer}_{j} {low} {high} I={IDEAL * siemens!r}*max({drop},0)"
            else:
                yield f"D{layer}_{j} {low} {high} unit"
    if diode != "ideal":
        model = MODELS[diode].scaled(scale)
        yield f".model unit D(IS={model.saturation!r} N={model.emission!r} RS={model.series!r})"


def available() -> bool:
    """Whether ngspice is installed."""
    return shutil.which("ngspice") is not None


def solve(text: str, sizes: Sequence[int]) -> list[Float[np.ndarray, " _n"]]:
    """Node voltages (V) of a netlist from `netlist`, one array a layer, l = 1 … L.

    Raises:
        SpiceUnavailable: without ngspice. SpiceError: where ngspice finds no operating point.
    """
    if not available():
        raise SpiceUnavailable("ngspice is not installed: it is the package `ngspice` of Debian, Ubuntu, conda-forge")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "op.raw"  # as text, with all the digits that a listing lacks
        command, environment = ["ngspice", "-b", "-r", str(raw)], os.environ | {"SPICE_ASCIIRAWFILE": "1"}
        done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=300)
        header, _, values = (raw.read_text() if raw.exists() else "").partition("Values:")
    names = re.findall(r"^\s*\d+\s+(\S+)\s+(?:voltage|current)", header, re.MULTILINE)
    voltages = dict(zip(names, map(float, values.split()[1:]), strict=False))
    nodes = ([f"v(v{layer}_{j})" for j in range(1, n + 1)] for layer, n in enumerate(sizes[1:], 1))
    try:
        return [np.array([voltages[node] for node in layer]) for layer in nodes]
    except KeyError:
        raise SpiceError(f"ngspice found no operating point:\n{(done.stdout + done.stderr)[-2000:]}") from None
