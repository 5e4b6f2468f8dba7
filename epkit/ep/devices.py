"""A resistive network of devices: conductances of finitely many states, bounded, uneven, written with errors, stuck.

What a programmed conductance can't do is a matter of the network's update; what a read can't see is one of the read-out
(`epkit.readouts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..messages import shown
from . import checks
from .networks import DeepResistiveNetwork, Gradient, Rates, Voltages

Conductances = Float[Tensor, "member n_pre n_post"]

DIGITS = 4096.0  # of a number in binary, those after the first twelve are as good as random
OTHERS = 1618.033988749895  # times that: numbers that are independent of these
# Error of a write to phase-change memory, over its largest conductance of 25 µS, as a polynomial in G over the largest:
# 1.1, 3.8 and 4.2 % at 0, half and all of it. Source: S. R. Nandakumar et al., ICECS 2019, as in IBM aihwkit's preset.
PCM = (0.26348 / 25, 1.9650 / 25, -1.1731 / 25)


class DeviceNetwork(DeepResistiveNetwork):
    """Called as `DeepResistiveNetwork`, with what its devices are; None is an ideal one. Trains on the torch engine.

    Nothing is drawn while it trains: where a step is uncertain, the last digits of what was asked for decide, so that a
    resumed training is the same, and a member's is in any company. Biases and outputs stay ideal.

    Args:
        largest: conductance (S) that none exceeds, > 0.
        states: of each conductance, at equal distances from 0 to `largest`, 2 or more. Source of the usual number:
            1,200 in the ConstantStep preset of IBM aihwkit.
        rounding: "nearest", which loses every step below half a state, or "stochastic", up or down in proportion.
        asymmetry: steps up are 1 + asymmetry times as large as asked for, those down 1 - asymmetry, -1 to 1; 0.01 in
            that preset.
        between: standard deviation of the size of steps from device to device, over the mean, >= 0; 0.3 there.
        within: the same from one step of a device to the next; 0.3 there.
        write: standard deviation of the error that a write leaves behind, over `largest`, whatever the step: a number,
            or the coefficients c_0, c_1 … of a polynomial in G over `largest`, such as `PCM`. Only conductances that
            are to change are written; those of finitely many `states` have no such error.
        stuck: share of conductances that keep their first value, 0 to 1.
        stuck_units: share of hidden units with a broken diode, 0 to 1.
        held_at: voltage (V) that such a unit is held at, 0 if its diode has become a wire to ground; None: the diode
            never conducts, and the unit is linear.
        device_seed: which ones are stuck, and how large the steps of each are, the same in all members.

    Raises:
        ValueError: for what `DeepResistiveNetwork` refuses, or a device that is none, by its name.
    """

    def __init__(
        self,
        *arguments: Any,
        largest: float | None = None,
        states: int | None = None,
        rounding: Literal["nearest", "stochastic"] = "nearest",
        asymmetry: float | None = None,
        between: float | None = None,
        within: float | None = None,
        write: float | Sequence[float] | None = None,
        stuck: float | None = None,
        stuck_units: float | None = None,
        held_at: float | None = 0.0,
        device_seed: int = 0,
        **options: Any,
    ) -> None:
        self.largest = None if largest is None else checks.number("largest", largest, above=0.0)
        if states is not None and largest is None:
            raise ValueError(f"states = {checks.count('states', states, 2)}: they are those up to `largest`, give it")
        self.spacing = None if states is None else (self.largest or 0.0) / (checks.count("states", states, 2) - 1)
        checks.choice("rounding", rounding, ("nearest", "stochastic"))
        self.rounding = rounding
        self.asymmetry = None if asymmetry is None else checks.number("asymmetry", asymmetry, least=-1.0)
        spread = 0.0 if between is None else checks.number("between", between, least=0.0)
        self.within = None if within is None else checks.number("within", within, least=0.0)
        shares = {"asymmetry": self.asymmetry or 0.0}
        for name, value in (("stuck", stuck), ("stuck_units", stuck_units)):
            shares[name] = 0.0 if value is None else checks.number(name, value, least=0.0)
        for name, value in shares.items():
            if value > 1:
                raise ValueError(f"{name} = {value}: must be at most 1")
        self.held_at = None if held_at is None else checks.number("held_at", held_at)
        self.write = None if write is None else checks.tensor("write", write).double().reshape(-1).tolist()
        if self.write == []:
            raise ValueError(f"write = {shown(write)}: must be a number, or the coefficients of a polynomial")
        if self.write is not None and (largest is None or states is not None):
            raise ValueError(f"write = {shown(write)}: it is a share of `largest`, give it, and no `states`")
        super().__init__(*arguments, **options)
        generator = torch.Generator().manual_seed(checks.count("device_seed", device_seed, 0))
        drawn = [torch.rand(w.shape[1:], generator=generator) < shares["stuck"] for w in self.weights]
        self.stuck: list[Bool[Tensor, "_n_pre _n_post"]] = [s.to(self.biases[0].device) for s in drawn]
        sizes = [1 + spread * torch.randn(w.shape[1:], generator=generator) for w in self.weights]
        self.step_sizes: list[Float[Tensor, "_n_pre _n_post"]] = [s.clamp_min(0).to(self.biases[0]) for s in sizes]
        broken = [torch.rand(n, generator=generator) < shares["stuck_units"] for n in self.sizes[1:-1]]
        self.broken: list[Bool[Tensor, " _n"]] = [b.to(self.biases[0].device) for b in broken]
        for w in self.weights:
            w.clamp_max_(float("inf") if self.largest is None else self.largest)
            if self.spacing is not None:
                w.copy_((w / self.spacing).round() * self.spacing)

    def update(self, gradient: Gradient, rates: Rates, bias_rates: Rates) -> None:
        """A step of gradient descent, in place, as far as the devices follow."""
        each = zip(self.weights, gradient.weights, rates, self.step_sizes, strict=True)
        changes = [self._change(w, -rate[:, None, None] * g * size, g) for w, g, rate, size in each]
        before = [w.clone() for w in self.weights]
        super().update(Gradient([-c for c in changes], gradient.biases), torch.ones_like(rates), bias_rates)
        for w, old, stuck in zip(self.weights, before, self.stuck, strict=True):
            if self.spacing is not None:  # of a state that float32 can't hold to the last digit
                w.copy_((w / self.spacing).round() * self.spacing)
            if self.largest is not None:
                w.clamp_max_(self.largest)
            w.copy_(torch.where(stuck, old, w))

    def bounded(self, v: Voltages, layer: int) -> Voltages:
        """Units with a broken diode are held at a voltage, or at none."""
        held = v if self.held_at is None else torch.full_like(v, self.held_at)
        return torch.where(self.broken[layer], held, super().bounded(v, layer))

    def _change(self, w: Conductances, change: Conductances, gradient: Conductances) -> Conductances:
        """What the devices make of the steps asked for (S)."""
        if self.within is not None:
            change = change * (1 + self.within * _normal(gradient, DIGITS))
        if self.asymmetry is not None:
            change = change * torch.where(change > 0, 1 + self.asymmetry, 1 - self.asymmetry)
        if self.write is not None and self.largest is not None:
            goal = (w + change).clamp(0, self.largest) / self.largest
            sd = sum(c * goal**k for k, c in enumerate(self.write))
            written = self.largest * (goal + torch.as_tensor(sd).clamp_min(0) * _normal(gradient, DIGITS * OTHERS))
            change = torch.where(change == 0, change, written - w)
        if self.spacing is None:
            return change
        steps = change / self.spacing
        if self.rounding == "nearest":
            return steps.round() * self.spacing
        return (steps + (steps.abs() * DIGITS).frac()).floor() * self.spacing


def _normal(gradient: Conductances, digits: float) -> Conductances:
    """Standard-normal numbers, within 3.5, from the last digits of a gradient."""
    uniform = (torch.frexp(gradient.double()).mantissa.abs() * digits).frac()
    return torch.special.ndtri(uniform.clamp(1 / DIGITS, 1 - 1 / DIGITS)).to(gradient)
