# ruff: noqa: F401
# mypy: implicit-reexport
"""Read-outs that hardware has, put together from parts (docs/readouts.md).

import epkit
from epkit.readouts import Converter, Mismatch, Noise

readout = (Mismatch(offset=3.4e-3) | Noise(5e-5) | Converter(bits=13, span=(-1, 1))).averaged(4)
epkit.train(net, x, y, ..., readout=readout)
"""

from .chain import Chain, Differential, Part
from .kinds import KINDS, Kind, of_kind
from .parts import (
    Comparator,
    Converter,
    Drift,
    Flicker,
    HeavyTails,
    Measured,
    Mismatch,
    Noise,
    RelativeNoise,
    thermal,
)
from .presets import PRESETS, Preset, preset
