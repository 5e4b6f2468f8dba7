"""The budget itself: arithmetic on the signals of an untrained network, line by line the same as in page.js.

The formulas, and what they leave out, are in docs/budget.md. Voltages and signals are those of targets of 1 V; with a
target t, voltages, noise and limits go with t, gradients with t^2.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import ceil, exp, inf, log, log10, sqrt
from typing import Any

from ..ep.prediction import CONSTANT, SCATTER, WIDE

BIAS = 1.0  # error of the gradient that is the same in every step, over the mean gradient: at most
DITHER = 0.5  # noise of a read, over a converter's step, from which on averaging sees through the steps
OUTPUTS = 10  # units that classify
NEAR = 0.5  # decades to the nearest stored sweep, beyond which no error is expected from it
REASONS = ("", "reads", "floor", "bias", "range")  # why not, the least serious first
COMPARED = ("gain", "beta", "learning_rate", "batch_size", "images", "width", "depth")
Signals = dict[str, Any]
Look = Callable[[float, float], Signals]


def interpolated(table: Mapping[str, Any], network: Mapping[str, Any], gain: float, beta: float) -> Signals:
    """Signals at a gain and a nudge, log-log between the table's.

    Raises:
        ValueError: outside of the table, or where the network has no steady state.
    """
    axes = {"input_gain / target": (table["gains"], gain), "beta": (table["betas"], beta)}
    for name, (axis, value) in axes.items():
        if not axis[0] <= value <= axis[-1]:
            raise ValueError(f"{name} = {value:.4g}: allowed are {axis[0]:g} to {axis[-1]:g}, those of the table")
    (i, u), (j, v) = (_place(axis, value) for axis, value in axes.values())
    corners = ((i, j, (1 - u) * (1 - v)), (i, j + 1, (1 - u) * v), (i + 1, j, u * (1 - v)), (i + 1, j + 1, u * v))
    used = [corner for corner in corners if corner[2] > 0]
    if any(network["noise"][a][b] is None for a, b, _ in used):
        raise ValueError(f"beta = {beta:.4g}: too strong for this network, smaller ones are allowed")

    def mean(values: Sequence[float]) -> float:
        return exp(sum(weight * log(value) for value, (_, _, weight) in zip(values, used, strict=True)))

    found: Signals = {}
    for key, grid in network.items():
        if key in ("voltage", "level"):
            found[key] = [[gain * v for v in row] if key == "level" else gain * row for row in grid]
        elif key in ("response", "largest_response"):
            found[key] = [mean([grid[a][b][k] for a, b, _ in used]) for k in range(len(network["voltage"]))]
        else:
            found[key] = mean([grid[a][b] for a, b, _ in used])
    return found


def _place(axis: Sequence[float], value: float) -> tuple[int, float]:
    """The interval of an axis that holds a value, and where in it, on a logarithmic scale."""
    k = min(bisect_right(axis, value) - 1, len(axis) - 2)
    return k, log(value / axis[k]) / log(axis[k + 1] / axis[k])


def candidates(
    design: Mapping[str, Any], look: Look, shares: Sequence[float], sweeps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All that was asked for, as it is and as it fits the converter's range, with what it takes and what is near it."""
    found = []
    settings = product(*(design[key] for key in ("input_gain", "beta", "learning_rate", "batch_size", "scheme")))
    for gain, beta, rate, batch, scheme in settings:
        if scheme == "differential" and design["adc_bits"] is None and len(design["scheme"]) > 1:
            continue  # without steps there is nothing to tell the schemes apart
        for fit, a, t in _fits(design, look(gain / design["target"], beta), gain):
            try:
                signals = look(a / t, beta)
            except ValueError:  # of a network that nobody asked for
                if fit == "as asked":
                    raise
                continue
            one = _candidate(design, signals, shares, (fit, a, t, beta, rate, batch, scheme))
            found.append(one | {"nearest": _nearest(design, one, sweeps)})
    return found


def _fits(design: Mapping[str, Any], signals: Signals, gain: float) -> list[tuple[str, float, float]]:
    """Gains and targets (V): as asked; and, where the range is exceeded, lowered and scaled until it isn't."""
    target, half = design["target"], _half(design)
    largest = target * max(level[-1] for level in signals["level"])
    of_gain, of_target = min(1.0, half / largest), min(1.0, half / target)
    both = min(of_gain, of_target)
    fits = [("as asked", gain, target)]
    if both < 1:
        fits += [("gain lowered", gain * of_gain, target * of_target), ("all scaled", gain * both, target * both)]
    return fits


def _half(design: Mapping[str, Any]) -> float:
    return inf if design["adc_range"] is None else design["adc_range"] / 2


def _candidate(
    design: Mapping[str, Any], signals: Signals, shares: Sequence[float], setting: tuple[Any, ...]
) -> dict[str, Any]:
    fit, gain, t, beta, rate, batch, scheme = setting
    half, g, n = _half(design), signals["gradient"], signals["noise"]
    of_batch = sqrt(g**2 + signals["spread"] ** 2 / batch)
    layers = [
        {
            "voltage": t * signals["voltage"][k], "largest": t * level[-1], "beyond": _beyond(shares, level, half / t),
            "response": t * signals["response"][k],
        }
        for k, level in enumerate(signals["level"])
    ]  # fmt: skip
    limit = t * CONSTANT * sqrt(batch * g * of_batch / rate) / n
    low, high = limit / SCATTER**WIDE, limit * SCATTER**WIDE
    terms = [
        *_terms(design, signals, t, scheme),
        # of an update, as the noise of a read that would do the same
        _term("write noise", design["write_noise"] * t * of_batch * sqrt(batch) / n, False),
        _term("programming noise", design["programming_noise"] * t * of_batch * sqrt(batch) / (rate * n), False),
    ]
    averaged = sum(term["volts"] ** 2 for term in terms if term["averages"])
    floor = sum(term["volts"] ** 2 for term in terms if not term["averages"])
    margin = design["margin"]
    for term in terms:
        square = term["volts"] ** 2
        term["alone"] = _reads(square, 0.0, limit, margin) if term["averages"] else _reads(0.0, square, limit, margin)
    offset, mismatch = (
        design["offset"] * signals["offset"] / (g * t),
        design["gain_mismatch"] * signals["gain_mismatch"] / g,
    )
    reads = _reads(averaged, floor, limit, margin)
    fits = max([t, *(layer["largest"] for layer in layers)]) <= half * (1 + 1e-9)
    bias = sqrt(offset**2 + mismatch**2)
    reason = (
        "range" if not fits
        else "bias" if bias > BIAS
        else "floor" if reads is None
        else "reads" if reads > design["most_reads"]
        else ""
    )  # fmt: skip
    usable = gain * half / max(layer["largest"] for layer in layers)
    return {
        "fit": fit, "input_gain": gain, "target": t, "beta": beta, "learning_rate": rate, "batch_size": batch,
        "scheme": scheme, "layers": layers, "usable_gain": usable if usable < inf else None,
        "limit": limit, "limit_low": low, "limit_high": high, "averaged": sqrt(averaged), "floor": sqrt(floor),
        "margin": limit / sqrt(averaged + floor) if averaged + floor else None, "terms": terms,
        "offset": offset, "gain_mismatch": mismatch, "reads": reads,
        "reads_low": _reads(averaged, floor, high, margin), "reads_high": _reads(averaged, floor, low, margin),
        "reason": reason, "binding": _binding(reason, terms, offset, mismatch, reads),
    }  # fmt: skip


def _term(name: str, volts: float, averages: bool) -> dict[str, Any]:
    return {"name": name, "volts": volts, "averages": averages}


def _terms(design: Mapping[str, Any], signals: Signals, t: float, scheme: str) -> list[dict[str, Any]]:
    """What adds to a read, as independent noise in each phase that would spoil the estimate as much (V)."""
    rho, n = design["correlation"], signals["noise"]
    own, half = design["noise"] * sqrt(1 - rho), _half(design)
    found = [
        _term("noise", own, True),
        _term("noise that reads have in common", design["noise"] * sqrt(rho), False),
        _term("relative noise", design["relative_noise"] * t * signals["relative_noise"] / n, True),
        _term("drift", design["drift"] / sqrt(2), False),
    ]
    if design["adc_bits"] is None:
        return found
    codes = 2.0 ** design["adc_bits"]
    step, squared = 2 * half / codes, (signals["mean_noise"] / n) ** 2
    if scheme == "direct":
        return [*found, _term("steps of the converter", step / sqrt(12), own >= DITHER * step)]
    steps = [2 * t * largest / codes for largest in signals["largest_response"][:2]]
    fine = sqrt((steps[0] ** 2 + steps[1] ** 2) / 24 * (1 - squared / 2) / 2)
    dithered = sqrt(2) * own >= DITHER * max(steps)
    coarse = step / sqrt(12) * sqrt(squared)
    return [
        *found,
        _term("steps of the difference's converter", fine, dithered),
        _term("steps of the mean's converter", coarse, own / sqrt(2) >= DITHER * step),
    ]


def _reads(averaged: float, floor: float, limit: float, margin: float) -> int | None:
    """N for which noise stays a margin below the limit; None: no number will do."""
    room = (limit / margin) ** 2 - floor
    return max(1, ceil(averaged / room * (1 - 1e-9))) if room > 0 else None


def _beyond(shares: Sequence[float], level: Sequence[float], half: float) -> float:
    """Share of a layer's voltages whose magnitude exceeds half the range."""
    if half >= level[-1]:
        return 0.0
    if half < level[0]:
        return shares[0]
    k = bisect_right(level, half) - 1
    return shares[k] + (shares[k + 1] - shares[k]) * (half - level[k]) / (level[k + 1] - level[k])


def _binding(reason: str, terms: Sequence[Mapping[str, Any]], offset: float, mismatch: float, reads: int | None) -> str:
    """What sets the answer: the term to work on first."""
    if reason == "range":
        return "range of the converter"
    if reason == "bias":
        return "offsets" if offset >= mismatch else "gain mismatch"
    averages = {"floor": [False], "reads": [True]}.get(reason, [True] if (reads or 0) > 1 else [True, False])
    largest = max((term for term in terms if term["averages"] in averages), key=lambda term: term["volts"])
    return largest["name"] if largest["volts"] > 0 else "nothing"


def best(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The candidate that works with the fewest reads, or comes closest; what is like no stored sweep stands behind.

    The formula says nothing of networks that would not learn without noise, and lowered gains make such networks.
    """
    return min(found, key=rank)


def rank(candidate: Mapping[str, Any]) -> tuple[float, bool, float, float]:
    reads, margin = candidate["reads"], candidate["margin"]
    order = float(REASONS.index(candidate["reason"]))
    return (
        order,
        candidate["nearest"] is None,
        inf if reads is None else float(reads),
        -inf if margin is None else -margin,
    )


def _nearest(
    design: Mapping[str, Any], chosen: Mapping[str, Any], sweeps: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The stored sweep most like the chosen candidate, and its error at that noise; None if none is near."""
    hidden, t = design["hidden"], chosen["target"]
    own = {
        "gain": chosen["input_gain"] / t, "beta": chosen["beta"], "learning_rate": chosen["learning_rate"],
        "batch_size": chosen["batch_size"], "images": design["images"],
        "width": exp(sum(log(n) for n in hidden) / len(hidden)), "depth": len(hidden),
    }  # fmt: skip
    if chosen["reads"] is None:
        return None
    sigma = sqrt(chosen["averaged"] ** 2 / chosen["reads"] + chosen["floor"] ** 2) / t
    choice: dict[str, Any] | None = None
    for sweep in sweeps:
        if sweep["dataset"] != design["dataset"] or sigma > sweep["sigma"][-1]:
            continue
        distance = sqrt(sum(log10(own[key] / sweep[key]) ** 2 for key in COMPARED))
        if distance <= NEAR and (choice is None or distance < choice["distance"] - 1e-9):
            at = {key: _at(sweep["sigma"], sweep[key], sigma) for key in ("error", "low", "high")}
            choice = at | {"distance": distance, "store": sweep["store"], "n": sweep["n"], "sigma": sigma}
    return choice


def _at(sigmas: Sequence[float], values: Sequence[float], sigma: float) -> float:
    """A value of a curve over log sigma; below the least sigma, that of the least."""
    if sigma <= sigmas[0]:
        return values[0]
    k = min(bisect_right(sigmas, sigma) - 1, len(sigmas) - 2)
    share = log(sigma / sigmas[k]) / log(sigmas[k + 1] / sigmas[k])
    return values[k] + (values[k + 1] - values[k]) * share


def cost(design: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, float] | None:
    """Time (s) and energy (J) of the reads of a training: two phases an image, N reads of all units in each."""
    if chosen["reads"] is None:
        return None
    reads = 2.0 * design["images"] * chosen["reads"]
    units = sum(design["hidden"]) + OUTPUTS
    return {"reads": reads, "seconds": reads * design["read_time"], "joules": reads * units * design["read_energy"]}
