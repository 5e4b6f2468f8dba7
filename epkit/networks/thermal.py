"""A network of devices whose conductances make Johnson noise while the circuit settles.

A conductance g at the temperature T carries a noise current of the density 4 k T g (H. Nyquist, Phys. Rev. 32 (1928)
110), whose mean over a time tau has the variance 2 k T g / tau. A voltage that is averaged over a tau much longer than
the circuit takes to settle is thus that of the circuit with such a current in parallel with each conductance, and the
voltages of all units that conduct have the covariance 2 k T / tau times the inverse of the matrix of conductances:
noise that units share, as that of a read-out is not. A voltage that is sampled in an instant has the variance k T / C
instead, independent for each unit whatever the conductances: that is `epkit.readouts.thermal`.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from ..ep import checks
from ..ep.devices import DeviceNetwork
from ..ep.networks import Images, Network, Nudges, PhaseStates, States, Targets, batch_of, generators_of


class ThermalNetwork(DeviceNetwork):
    """Called as `DeviceNetwork`, and with the power of its Johnson noise; trains on the torch engine.

    Noisy are the phases that learning compares, each by itself; predictions, and the free phase from zero, are exact.
    Diodes, inputs and nudges add no noise.

    Args:
        power: 2 k T / tau (W), >= 0: 8.3e-18 for 300 K and 1 ms. In units of S and V where a weight of 1 is 1 S and a
            voltage of 1 is 1 V; divide by what else they stand for.
        noise_seed: of the noise, which depends on it, the images and the phase alone, as in `DeepHopfieldNetwork`.

    Raises:
        ValueError: for what `DeviceNetwork` refuses, a power < 0, or a seed that is none.
    """

    def __init__(self, *arguments: Any, power: float, noise_seed: int = 0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.power = checks.number("power", power, least=0.0)
        self.noise_seed = checks.count("noise_seed", noise_seed, 0)
        self.johnson: PhaseStates | None = None  # currents of one phase (A)

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """As of DeepResistiveNetwork, with one current of each conductance (A) during the whole phase."""
        phase = copy(self)
        if self.power and (start is not None or target is not None):
            phase.johnson = self._johnson(batch_of(checks.images(self, x)), beta)
        return super(ThermalNetwork, phase).relax(x, iterations, target, beta, start)

    def relax_phases(self, x: Images, target: Targets, nudges: Nudges, iterations: int) -> tuple[States, PhaseStates]:
        """One phase after the other, for each has noise of its own."""
        return Network.relax_phases(self, x, target, nudges, iterations)

    def _johnson(self, x: Images, beta: float) -> PhaseStates:
        """Noise currents into the units of each layer (A): what leaves one end of a conductance enters the other."""
        drawn, batch = generators_of(self.noise_seed, x, beta), x.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(batch, *shape, generator=g) for g in drawn]).to(self.biases[0])

        # all that the inputs' conductances add to a unit is one current, for the other ends are held
        currents = [(self.power * self.weights[0].sum(1)).sqrt()[:, None] * normal(self.sizes[1])]
        for w in self.weights[1:]:
            of_each = (self.power * w).sqrt()[:, None] * normal(*w.shape[1:])
            currents[-1] = currents[-1] - of_each.sum(3)
            currents.append(of_each.sum(2))
        return [c[:, None] for c in currents]

    def _circuit(self, x: Images) -> tuple[PhaseStates, list[Tensor]]:
        currents, totals = super()._circuit(x)
        return [c + i for c, i in zip(currents, self.johnson, strict=True)] if self.johnson else currents, totals
