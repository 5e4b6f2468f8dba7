"""A read-out of each kind, by name, as parameter files ask for it: at equal rms, so that kinds can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any, Literal

from ..ep.readout import Averaging
from .chain import Chain, Differential, Part
from .parts import Converter, Drift, Flicker, HeavyTails, Mismatch, Noise, RelativeNoise

Kind = Literal[
    "noise", "correlated noise", "heavy tails", "relative noise", "1/f noise", "drift", "offset", "gain", "converter"
]
CORRELATION = 0.1  # of reads: no number of them does more than ten
INTERVAL, GAP, LONGEST = 1e-6, 1e-5, 1.0  # s: between reads, between phases, since the last calibration
ROUNDING = 12**0.5  # steps over the rms error of rounding

# sigma (V), rms voltage that shares are of (V), number of the circuit -> the part; its reads are off by sigma rms
KINDS: dict[str, Callable[[Any, float, int], Part]] = {
    "noise": lambda sigma, volts, circuit: Noise(sigma),
    "correlated noise": lambda sigma, volts, circuit: Noise(sigma, correlation=CORRELATION),
    "heavy tails": lambda sigma, volts, circuit: HeavyTails(sigma),
    "relative noise": lambda sigma, volts, circuit: RelativeNoise(sigma / volts),
    "1/f noise": lambda sigma, volts, circuit: Flicker(
        sigma / log(LONGEST / (2 * INTERVAL)) ** 0.5, gap=GAP, interval=INTERVAL, longest=LONGEST
    ),
    "drift": lambda sigma, volts, circuit: Drift(sigma / GAP, GAP),
    "offset": lambda sigma, volts, circuit: Mismatch(offset=sigma, seed=circuit),
    "gain": lambda sigma, volts, circuit: Mismatch(gain=sigma / volts, seed=circuit),
}


def of_kind(
    kind: Kind, sigma: Any, samples: int = 1, averaging: Averaging = "shortcut", *, volts: float = 1.0,
    circuit: int = 0, lsb: float | None = None, bits: int | None = None,
    spans: Sequence[Sequence[float]] | None = None, mean_lsb: float | None = None, differential: bool = False,
) -> Chain:  # fmt: skip
    """The mean of N reads of a kind.

    Args:
        kind: what the read errs by; a converter errs by rounding alone, with steps of sigma sqrt(12).
        sigma: rms error of a read (V), a number or one a member; of a converter a number. Drift is of the second phase.
        samples, averaging: N, and how their mean is drawn, as in `Chain`.
        volts: rms voltage that relative noise and gain make errors of sigma at (V).
        circuit: which one an offset or gain is drawn for.
        lsb: step of a converter behind it (V); None: none.
        bits: of the kind converter, in place of sigma; None: of so small steps.
        spans: low and high of that converter, or of the kind converter, one such pair a layer (V); None: no ends.
        mean_lsb: step of what converts the mean of the phases (V), if `differential`; None: exact.
        differential: the converter takes the difference of the phases, not both of them.

    Raises:
        ValueError: for a parameter that its part refuses, by its name.
    """
    rounds = kind == "converter"
    step = lsb if not rounds else None if bits else float(sigma) * ROUNDING
    converts = Converter(bits, spans, step) if bits or step else None
    parts: list[Any] = [] if rounds else [KINDS[kind](sigma, volts, circuit)]
    mean = Converter(lsb=mean_lsb) if mean_lsb else None
    parts.append(Differential(converts, mean) if differential else converts)
    return Chain(tuple(parts), samples, averaging)
