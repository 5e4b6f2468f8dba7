"""Read-outs with the numbers of published hardware; each names its source.

Voltages of a simulated network are in proportion to its input gain, so a preset takes the voltage that its full scale
stands for there, and all of its voltages go along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..ep import checks
from ..messages import hint, shown
from .chain import Chain, Differential
from .parts import Comparator, Converter, Mismatch, Noise, thermal


class Preset(NamedTuple):
    """A read-out, made for a full scale (V) in place of its own, with where its numbers come from."""

    make: Callable[[float], Any]
    full_scale: float
    source: str


PRESETS = {
    "gaussian": Preset(
        lambda v: Noise(5e-5 * v), 1.0, "arXiv:2503.22810: Gaussian noise at the critical limit that it reports"
    ),
    "kT/C": Preset(
        lambda v: Noise(thermal(1.66e-12, 300.0).sigma * v),
        1.0,
        "own calculation: sqrt(kT/C) of 1.66 pF at 300 K, for 1 V of full scale",
    ),
    "13 bits": Preset(
        lambda v: Converter(bits=13, span=(-v / 2, v / 2)),
        1.0,
        "own calculation: the converter of 1 V whose LSB/sqrt(12) comes next below 50 µV",
    ),
    "aihwkit": Preset(
        lambda v: Noise(0.005 * v) | Converter(bits=9, span=(-v, v)),
        1.0,
        "defaults of IBM aihwkit: converter of 9 bits, output noise 0.5 % of the output's bound",
    ),
    "oscillators": Preset(
        lambda v: Converter(bits=4, span=(-v / 2, v / 2)), 1.0, "arXiv:2505.02103: 4 bits read are tolerated there"
    ),
    "op-amp": Preset(lambda v: Mismatch(offset=3.5e-3 * v), 1.0, "measured op-amps: offsets of 2 to 5 mV"),
    "comparator": Preset(
        lambda v: Differential(Mismatch(offset=3.4e-3 * v) | Comparator(level=1e-3 * v, threshold=0.7e-3 * v)),
        1.0,
        "measured latches in 0.18 µm: offset 0.7 mV in the mean, 3.4 mV sd; the level is free to choose",
    ),
    "XOR board": Preset(
        lambda v: Noise(8e-6 * v / 6.144) | Converter(bits=16, span=(-v, v)),
        6.144,
        "published board of 16 digital potentiometers and diodes: 187.5 µV a step, thermal noise 8 µV",
    ),
}


def preset(name: str, full_scale: float | None = None) -> Chain:
    """The read-out of that name; all its voltages in proportion if its full scale is to be another (V).

    Raises:
        ValueError: for another name, or a full scale <= 0.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"name = {shown(name)}: {hint(name, PRESETS)}")
    of = PRESETS[name]
    volts = of.full_scale if full_scale is None else checks.number("full_scale", full_scale, above=0.0)
    return Chain((of.make(volts),))
