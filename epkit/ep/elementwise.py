"""What electronics does to one voltage at a time, as a list of operations that torch and the C++ engine both carry out.

A read-out whose `read` is such a list gives it as `program(members, units)`; then it trains on the fast engine. Values
are per member, per layer or per unit; nothing here is random but what `noise` has drawn beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .networks import PhaseStates

# The order is the number that the C++ engine knows each by.
Kind = Literal["add", "multiply", "affine", "round", "sign", "split", "join"]
KINDS: tuple[Kind, ...] = ("add", "multiply", "affine", "round", "sign", "split", "join")
RANDOM = ("add", "multiply")
BOTH, FIRST, SECOND = 0, 1, 2


class Operation(NamedTuple):
    """One step of a reading, of voltages v with the random numbers xi of this read.

    Attributes:
        kind: with the shape of `values`, all in V unless they are a share:
            "add" (member,): v + s xi. "multiply" (member,): v (1 + s xi), s a share.
            "affine" (2, member, units of all layers): gain v + offset.
            "round" (layer, 4): to the nearest origin + k LSB with least <= k <= most; LSB, origin, least, most.
            "sign" (layer, 2): +level above the threshold, else -level; level, threshold.
            "split" (0,): from here on the pair is (upper - lower, mean) of the phases, no longer (upper, lower);
            "join" (0,): back again.
        side: of the pair, which one it acts on: BOTH, FIRST or SECOND.
        draw: which of the read-out's random numbers is xi.
    """

    kind: Kind
    values: Tensor
    side: int = BOTH
    draw: int = 0


def applied(operations: Sequence[Operation], states: PhaseStates, noise: Sequence[Tensor] | None) -> PhaseStates:
    """What the operations make of the voltages, layer by layer (member, 2, batch, n_l); noise: xi, likewise."""
    read, first = [], 0
    for layer, v in enumerate(states):
        pair, last = [v[:, 0], v[:, 1]], first + v.shape[-1]
        for operation in operations:
            if operation.kind == "split":
                pair = [pair[0] - pair[1], 0.5 * (pair[0] + pair[1])]
            elif operation.kind == "join":
                pair = [pair[1] + 0.5 * pair[0], pair[1] - 0.5 * pair[0]]
            else:
                for k in (0, 1) if operation.side == BOTH else (operation.side - 1,):
                    xi = None if noise is None else noise[layer][:, k]
                    pair[k] = _one(operation, pair[k], xi, layer, slice(first, last))
        read.append(torch.stack(pair, 1))
        first = last
    return read


def _one(operation: Operation, v: Tensor, xi: Tensor | None, layer: int, units: slice) -> Tensor:
    """One phase of one layer, (member, batch, n_l)."""
    kind, values = operation.kind, operation.values
    if kind in RANDOM:
        if xi is None:
            raise ValueError(f"noise = None: the operation {kind!r} takes a random number for each voltage")
        change = values.to(v)[:, None, None] * xi
        return v + change if kind == "add" else v * (1 + change)
    if kind == "affine":
        gain, offset = values[:, :, None, units].to(v)
        return gain * v + offset
    if kind == "round":
        # In float64: 17 V in float32 are a multiple of 2e-6 V, too coarse for what a nudge moves.
        lsb, origin, least, most = values[layer].to(v.device)
        code = ((v.double() - origin) / lsb).round().clamp(least, most)
        return (origin + code * lsb).to(v)
    level, threshold = values[layer].to(v)
    return torch.where(v > threshold, level, torch.where(v <= threshold, -level, v))  # NaN stays NaN
