"""A circuit that somebody else solves, or nature, as a network that `epkit.train` and `epkit.gradient` take unchanged.

A circuit has the layout of a deep resistive network and four methods (`Circuit`). `CircuitNetwork` holds the wanted
conductances; what it calls relaxation is what the circuit reads. The contrast of the two nudged phases needs the read
voltages alone, so it is right for the conductances that the circuit has, even where those are only near the wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from ..ep import checks
from ..ep.networks import (
    DeepResistiveNetwork,
    Gradient,
    Images,
    Network,
    Nudges,
    PhaseStates,
    Rates,
    States,
    Targets,
    batch_of,
)
from ..ep.training import State
from ..messages import shown

Vector = Float[np.ndarray, " _n"]
Matrix = Float[np.ndarray, "_n_pre _n_post"]


class CircuitError(RuntimeError):
    """A circuit did not do what it was asked; one line names the circuit, the request and what happened."""


@runtime_checkable
class Circuit(Protocol):
    """What `CircuitNetwork` asks of a circuit; every method raises CircuitError where the circuit fails.

    Attributes:
        sizes: units per layer, n_0 … n_L; every input is held at two nodes, v and -v.
        limits: least and greatest conductance that it can have (S).
    """

    sizes: tuple[int, ...]
    limits: tuple[float, float]

    def set_conductances(self, weights: Sequence[Matrix], biases: Sequence[Vector]) -> None:
        """Conductances (S), one (n_pre, n_post) a layer, the first with rows [+v, -v]; bias currents (A), (n_post,)."""
        ...

    def apply(self, voltages: Vector) -> None:
        """Hold the inputs at these voltages (V), (n_0,), and their second nodes at the negatives."""
        ...

    def nudge(self, beta: float, target: Vector | None) -> None:
        """Feed the current beta (target - v) into every output, beta in S, of either sign; 0 and None release them."""
        ...

    def read(self) -> Sequence[Vector]:
        """One reading of the voltage of every unit (V), one (n_l,) a layer, l = 1 … L, once the circuit has settled."""
        ...


def check_circuit(value: object) -> None:
    """ValueError for what is no circuit."""
    if not isinstance(value, Circuit):
        raise ValueError(f"circuit = {shown(value)}: must have what epkit.Circuit lists")


class CircuitNetwork(DeepResistiveNetwork):
    """A deep resistive network of one member whose relaxation is what a circuit reads.

    Images are presented one after another, each in all its phases. A circuit settles by itself, so `iterations` and
    `start` mean nothing here. Conductances go to the circuit before the first read after they have changed. A circuit
    that has coarse steps rounds what it is given; `weights` keep what was wanted, so that small updates add up.

    Args:
        circuit: whose `sizes` and `limits` are the network's; it may be replaced, after a lost connection say.
        input_gain: input voltage per unit of x, in units of `volts`.
        siemens: conductance that a weight of 1 stands for (S); with it the rates of a simulation are the circuit's.
        volts: voltage that 1 stands for (V), that of a class's output for example, whose target is 1.
        reads: readings of every voltage that are averaged.
        seed: of the initial conductances, those of `DeepResistiveNetwork` within the circuit's limits.

    Raises:
        ValueError: for an argument that makes no network, by its name.
    """

    def __init__(
        self, circuit: Circuit, *, input_gain: float, siemens: float = 1.0, volts: float = 1.0,
        reads: int = 1, seed: int = 0,
    ) -> None:  # fmt: skip
        check_circuit(circuit)
        self.circuit, self.reads = circuit, checks.count("reads", reads)
        self.siemens, self.volts = (checks.number(*p, above=0.0) for p in (("siemens", siemens), ("volts", volts)))
        super().__init__(circuit.sizes, input_gain=input_gain, seed=seed, dtype=torch.float64)
        self._given: tuple[Circuit, list[np.ndarray]] | None = None  # what the circuit was last set to
        self._clamp()

    def update(self, gradient: Gradient, rates: Rates, bias_rates: Rates) -> None:
        """A step of gradient descent, in place, after which conductances are clamped at the circuit's limits."""
        super().update(gradient, rates, bias_rates)
        self._clamp()

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """Voltages that the circuit reads; they and target in units of `volts`, beta in units of `siemens`.

        Raises:
            ValueError: for what a simulated network refuses. CircuitError: where the circuit fails.
        """
        x = checks.images(self, x)
        target, beta = checks.nudge(self, target, beta, x.shape[-2])
        return [v[:, 0] for v in self._present(x, target, [beta])]

    def relax_phases(self, x: Images, target: Targets, nudges: Nudges, iterations: int) -> tuple[States, PhaseStates]:
        """The free phase and both nudged ones of an image before the next is applied."""
        states = self._present(x, target, [0.0, *nudges.tolist()])
        return [v[:, 0] for v in states], [v[:, 1:] for v in states]

    def _present(self, x: Images, target: Targets | None, betas: Sequence[float]) -> PhaseStates:
        """What is read of each image under each nudge, (1, phase, batch, n_l) a layer."""
        if not self.has_minimum(min(betas)).all():
            smallest = float(self.weights[-1].sum(1).min())
            raise ValueError(
                f"beta = {max(map(abs, betas)):g}: must stay below the least total conductance of an output unit,"
                f" {smallest:.3g}"
            )
        self._program()
        inputs = (self.volts * self.input_gain * batch_of(x)[0]).numpy()
        goals = None if target is None else (self.volts * batch_of(target)[0]).numpy()
        states = [np.empty((1, len(betas), len(inputs), n)) for n in self.sizes[1:]]
        for k, voltages in enumerate(inputs):
            self.circuit.apply(voltages)
            for phase, beta in enumerate(betas):
                self.circuit.nudge(self.siemens * beta, goals[k] if beta and goals is not None else None)
                for layer, values in zip(states, self._read(), strict=True):
                    layer[0, phase, k] = values
            self.circuit.nudge(0.0, None)
        return [torch.from_numpy(v / self.volts) for v in states]

    def _read(self) -> list[Vector]:
        """Mean of `reads` readings (V); CircuitError unless each has one finite number a unit."""
        total = [np.zeros(n) for n in self.sizes[1:]]
        for _ in range(self.reads):
            read = [np.asarray(v, dtype=float) for v in self.circuit.read()]
            if [v.shape for v in read] != [v.shape for v in total] or not all(np.isfinite(v).all() for v in read):
                raise CircuitError(
                    f"{type(self.circuit).__name__} read {shown(read)}: must be a finite voltage of every unit"
                )
            total = [t + v for t, v in zip(total, read, strict=True)]
        return [t / self.reads for t in total]

    def _program(self) -> None:
        """Set the circuit to the parameters, unless it has been; ValueError for what lies outside of its limits."""
        units = [self.siemens] * len(self.weights) + [self.siemens * self.volts] * len(self.biases)
        wanted = [u * p[0].numpy() for u, p in zip(units, (*self.weights, *self.biases), strict=True)]
        if self._given and self._given[0] is self.circuit and all(map(np.array_equal, self._given[1], wanted)):
            return
        weights, biases = wanted[: len(self.weights)], wanted[len(self.weights) :]
        least, most = self.circuit.limits
        for k, w in enumerate(weights):
            if not (w >= least * (1 - 1e-9)).all() or not (w <= most * (1 + 1e-9)).all():
                raise ValueError(
                    f"weights[{k}] holds conductances from {w.min():.3g} to {w.max():.3g} S: the circuit has"
                    f" {least:.3g} to {most:.3g} S"
                )
        self.circuit.set_conductances([w.clip(least, most) for w in weights], biases)
        self._given = self.circuit, wanted

    def _clamp(self) -> None:
        least, most = (g / self.siemens for g in self.circuit.limits)
        for w in self.weights:
            w.clamp_(least, most)


class Checkpoint:
    """Where training on a circuit goes on from after a failure: parameters, and the state that belongs to them.

    A failure leaves the network between two states: within a block of steps, or before its record is written.

        checkpoint = Checkpoint(net)
        epkit.train(net, …, state=checkpoint.state, progress=checkpoint.keep)      # CircuitError
        net.circuit = …                                                            # connected again
        epkit.train(net, …, state=checkpoint.restored(), progress=checkpoint.keep) # as if nothing had happened
    """

    def __init__(self, net: Network) -> None:
        if not isinstance(net, Network):
            raise ValueError(f"net = {shown(net)}: must be a network, as CircuitNetwork is")
        self.net, self.state = net, State()
        self.keep()

    def keep(self, images: int = 0) -> None:
        """Remember this moment; called by `epkit.train` as its `progress`."""
        self._state = replace(self.state, history=list(self.state.history))
        self._parameters = [[p.clone() for p in ps] for ps in (self.net.weights, self.net.biases)]

    def restored(self) -> State:
        """The state last kept, after its parameters have been put back into the network."""
        self.state = replace(self._state, history=list(self._state.history))
        self.net.weights, self.net.biases = ([p.clone() for p in ps] for ps in self._parameters)
        return self.state
