"""Circuits that live in this process: our simulator as a circuit, and what a board's parts do to any circuit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..ep import checks
from ..ep.networks import DeepResistiveNetwork
from .network import Circuit, CircuitError, Matrix, Vector, check_circuit


class SimulatedCircuit:
    """The relaxation of `DeepResistiveNetwork` as a circuit: ideal diodes, exact reads, any conductance >= 0.

    Args:
        sizes: units per layer. iterations: of the free phase, and of a nudged one from the free state.
    """

    limits = (0.0, 1e3)

    def __init__(self, sizes: Sequence[int], *, iterations: int = 100) -> None:
        self.net = DeepResistiveNetwork(sizes, input_gain=1.0, dtype=torch.float64)
        self.sizes, self.iterations = self.net.sizes, checks.count("iterations", iterations)
        self._free: list[Tensor] | None = None  # of what is applied, once it has been read
        self.nudge(0.0, None)

    def set_conductances(self, weights: Sequence[Matrix], biases: Sequence[Vector]) -> None:
        self.net.weights, self.net.biases = ([torch.tensor(p)[None] for p in ps] for ps in (weights, biases))
        self._free = None

    def apply(self, voltages: Vector) -> None:
        self._x, self._free = torch.tensor(voltages)[None], None

    def nudge(self, beta: float, target: Vector | None) -> None:
        self._beta, self._target = beta, None if target is None else torch.tensor(target)[None]

    def read(self) -> list[Vector]:
        if self._free is None:
            self._free = self.net.relax(self._x, self.iterations)
        states = self._free
        if self._target is not None:
            states = self.net.relax(self._x, self.iterations, self._target, self._beta, self._free)
        return [v[0, 0].numpy() for v in states]


class Board:
    """A circuit with a board's parts: digital potentiometers as conductances, a converter that reads.

    A potentiometer of `steps` equal steps of resistance has conductances that lie close at the small end and far apart
    at the large one. The converter rounds to its step, after thermal noise; beyond its range it fails. Input voltages
    and nudges are exact, and there is nothing that feeds a bias current.

    Args:
        circuit: what the parts are soldered to.
        total, wiper: resistance of a potentiometer and of its wiper (ohm). steps: into which `total` is divided.
        lsb: step of the converter (V); 0 reads without rounding. span: greatest voltage it reads, either sign (V).
        noise: standard deviation of one read before rounding (V). seed: of that noise.
    """

    def __init__(
        self, circuit: Circuit, *, total: float = 100e3, wiper: float = 75.0, steps: int = 256,
        lsb: float = 187.5e-6, span: float = 6.144, noise: float = 8e-6, seed: int = 0,
    ) -> None:  # fmt: skip
        check_circuit(circuit)
        self.circuit, self.sizes = circuit, circuit.sizes
        self.total, self.wiper = checks.number("total", total, above=0.0), checks.number("wiper", wiper, least=0.0)
        self.steps, self.lsb = checks.count("steps", steps), checks.number("lsb", lsb, least=0.0)
        self.span, self.noise = checks.number("span", span, above=0.0), checks.number("noise", noise, least=0.0)
        self.limits = 1 / (wiper + total), 1 / (wiper + total / steps)
        self._random = np.random.default_rng(checks.count("seed", seed, 0))

    def set_conductances(self, weights: Sequence[Matrix], biases: Sequence[Vector]) -> None:
        if any(b.any() for b in biases):
            raise CircuitError("the board feeds no bias currents: biases must stay 0, as they do with bias_rate=0")
        self.circuit.set_conductances([self.stepped(w) for w in weights], biases)

    def stepped(self, conductance: Matrix) -> Matrix:
        """The conductances (S) whose resistances are nearest."""
        taps = np.rint((1 / conductance - self.wiper) / self.total * self.steps).clip(1, self.steps)
        return 1 / (self.wiper + taps / self.steps * self.total)

    def apply(self, voltages: Vector) -> None:
        if (beyond := np.abs(voltages).max()) > self.span:
            raise CircuitError(f"an input of {beyond:g} V is out of range: the board has {-self.span} to {self.span} V")
        self.circuit.apply(voltages)

    def nudge(self, beta: float, target: Vector | None) -> None:
        self.circuit.nudge(beta, target)

    def read(self) -> list[Vector]:
        return [self._converted(v) for v in self.circuit.read()]

    def _converted(self, v: Vector) -> Vector:
        v = v + self.noise * self._random.standard_normal(v.shape)
        if (beyond := np.abs(v).max()) > self.span:
            raise CircuitError(f"a unit at {beyond:g} V is out of range: the converter has ±{self.span} V")
        return np.rint(v / self.lsb) * self.lsb if self.lsb else v
