"""Variants of the deep resistive network, to find out by intervention what noise does (notebook 12).

Called as `DeepResistiveNetwork`. Some are that network and only begin otherwise; `engine.cpp` does what the others do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .networks import DeepResistiveNetwork, Gradient, Images, PhaseStates, Rates, States, Voltages

RAISED = (1.4, 1.15)  # by what noise raised the first layers' mean conductances in notebook 09, 784-1024³-10 on MNIST
LEAK = 0.1  # share of its voltage that a unit keeps where an ideal diode would hold it at 0 V


def raised(*arguments: Any, **options: Any) -> DeepResistiveNetwork:
    """A network whose first two layers of conductances begin as much larger as noise made them."""
    net = DeepResistiveNetwork(*arguments, **options)
    for w, factor in zip(net.weights, RAISED, strict=False):
        w.mul_(factor)
    return net


def spread(*arguments: Any, **options: Any) -> DeepResistiveNetwork:
    """A network whose conductances of 0, half of all, begin spread over the lower half of the others' range instead."""
    net = DeepResistiveNetwork(*arguments, **options)
    generator = torch.Generator().manual_seed(0)
    for w in net.weights:
        drawn = torch.rand(w.shape[1:], generator=generator, dtype=torch.float64) * 0.5 * w.shape[1] ** -0.5
        w.copy_(torch.where(w == 0, drawn.to(w), w))
    return net


class ExponentialNetwork(DeepResistiveNetwork):
    """Conductances W = exp(u), so that none is ever clamped at 0. A W of 0 begins at a thousandth of the largest.

    The step in u is the gradient by W over the mean of W, limited to ±1: exponentiated gradient descent, in which small
    conductances are as mobile as large ones. It is not the gradient by u, which is smaller by W.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for w in self.weights:
            w.clamp_min_(1e-3 * w.shape[1] ** -0.5)

    def update(self, gradient: Gradient, rates: Rates, bias_rates: Rates) -> None:
        """A step in u that, at the mean conductance, moves W as the same step in W would."""
        super(DeepResistiveNetwork, self).update(
            Gradient([torch.zeros_like(g) for g in gradient.weights], gradient.biases), rates, bias_rates
        )
        for w, g, rate in zip(self.weights, gradient.weights, rates, strict=True):
            scale = rate[:, None, None] / w.mean((1, 2), keepdim=True)
            w.mul_(torch.exp((-scale * g).clamp(-1, 1)))


class LeakyNetwork(DeepResistiveNetwork):
    """Diodes that leak: a unit that an ideal diode would hold at 0 V keeps a share of its voltage.

    So does one that its diode connects to ground with 1/LEAK - 1 times all conductances that meet at it.
    """

    def bounded(self, v: Voltages, layer: int) -> Voltages:
        return LEAK * v + (1 - LEAK) * super().bounded(v, layer)

    def energy(self, x: Images, states: States) -> Float[Tensor, "member batch"]:
        """With the power that leaks."""
        energy = super().energy(x, states)
        for leaking, before, after in zip(self._leaking(states), self.weights, self.weights[1:], strict=False):
            energy = energy + (leaking * (before.sum(1) + after.sum(2))[:, None]).sum(-1)
        return energy

    def contrast(self, x: Images, states: PhaseStates, width: float | Tensor) -> Gradient:
        weights, biases = super().contrast(x, states, width)
        leaking = [((u[:, 0] - u[:, 1]) / width).mean(1) for u in self._leaking(states)]
        after = [w + u[:, None] for w, u in zip(weights, leaking, strict=False)] + weights[-1:]
        return Gradient(after[:1] + [w + u[:, :, None] for w, u in zip(after[1:], leaking, strict=True)], biases)

    def _leaking(self, states: list[Float[Tensor, "*_batch _n"]]) -> list[Float[Tensor, "*_batch _n"]]:
        """Half the power that leaks in each hidden layer, over all conductances that meet at a unit (V^2)."""
        exact = super().bounded
        return [0.5 * (1 / LEAK - 1) * (v - exact(v, layer)).square() for layer, v in enumerate(states[:-1])]


VARIANTS: dict[str, Callable[..., DeepResistiveNetwork]] = {
    "raised": raised, "spread": spread, "exponential": ExponentialNetwork, "leaky": LeakyNetwork,
}  # fmt: skip
