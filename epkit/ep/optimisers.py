"""What training may make of the estimates before a network's own update: momentum, Adam, any of torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..messages import shown
from . import checks
from .networks import Gradient, Network

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
OPTIMISERS: dict[str, Make] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1.0),
}


class Optimiser:
    """An optimiser of torch.optim as a function from estimates to directions.

    It moves parameters that stand at 0, with a rate of 1: the direction is minus what they moved. So the rates of
    layers and members, and how a network keeps its parameters within bounds, stay what they are without it.

    Args:
        make: "momentum" (0.9), "adam", or what makes an optimiser of the parameters that it is called with; give it
            lr=1. One that looks at the parameters themselves, for a decay of weights, sees zeros.

    Raises:
        ValueError: for what is neither.
    """

    def __init__(self, make: Literal["momentum", "adam"] | Make, net: Network) -> None:
        if isinstance(make, str):
            checks.choice("optimiser", make, tuple(OPTIMISERS))
            make = OPTIMISERS[make]
        self.moved = [torch.zeros_like(p) for p in (*net.weights, *net.biases)]
        self.steps = make(self.moved) if callable(make) else None
        if not isinstance(self.steps, torch.optim.Optimizer):
            raise ValueError(f"optimiser = {shown(make)}: must be 'momentum', 'adam', or make one of torch.optim")

    def direction(self, estimate: Gradient) -> Gradient:
        """What takes the estimate's place in the update; the moments of the estimates so far are taken along."""
        for p, g in zip(self.moved, (*estimate.weights, *estimate.biases), strict=True):
            p.grad = g
        self.steps.step()
        taken = [-p for p in self.moved]
        for p in self.moved:
            p.zero_()
        return Gradient(taken[: len(estimate.weights)], taken[len(estimate.weights) :])
