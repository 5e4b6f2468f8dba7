"""Layered networks that Equilibrium Propagation can train, and the deep resistive network.

A network owns its energy, its contrast and its update; learning and training know nothing else of it. One written
outside epkit derives from `Network` and gives `sizes`, `weights`, `biases`, `relax` and `energy`: its contrast then
comes from autograd.

A deep resistive network (DRN, arXiv:2402.11674) is a layered circuit of conductances. Its steady state minimises half
the dissipated power

    E(v) = sum_l 1/2 sum_ij W_l,ij (v_l,i - v_{l+1},j)^2 - sum_l b_l . v_l

under the bounds that the diodes set: in every hidden layer the first half of the units keeps v >= 0, the second half
v <= 0; output units are linear. The input is duplicated and amplified, v_0 = A [x, -x]. That is a convex quadratic
programme, solved here by exact coordinate descent, layer by layer.

Inside, a state has the axes (member, phase, batch, unit). The phase axis has length 1 as long as every phase agrees
and becomes 2 only in the layers that the nudge has reached, so nothing is computed twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import checks

# Inputs, and desired outputs (V): with or without a member axis, which has length 1 where all members share them.
Images = Float[Tensor, "*#member batch n_0"]
Targets = Float[Tensor, "*#member batch n_L"]
# An underscore marks a length that differs from one entry of the list to the next.
Weights = list[Float[Tensor, "member _n_pre _n_post"]]
Biases = list[Float[Tensor, "member _n_post"]]
States = list[Float[Tensor, "member batch _n"]]
PhaseStates = list[Float[Tensor, "member _phase _batch _n"]]
Nudges = Float[Tensor, " 2"]  # of the two phases (S), upper first
Rates = Float[Tensor, "layer member"]
Voltages = Float[Tensor, "member phase batch n"]  # of one layer


class Gradient(NamedTuple):
    """Batch means of the estimate of dC/dW, one (member, n_pre, n_post) a layer (V^2 in a DRN), and dC/db (V)."""

    weights: Weights
    biases: Biases


class Network:
    """What Equilibrium Propagation asks of a network: an energy, its relaxation, its contrast and its update.

    Attributes:
        sizes: units per layer, n_0 … n_L.
        weights, biases: parameters, one (member, n_pre, n_post) and one (member, n_post) a layer; all on one device.
    """

    sizes: tuple[int, ...]
    weights: Weights
    biases: Biases

    @property
    def members(self) -> int:
        return self.weights[0].shape[0]

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """Layers 1 … L, one (member, batch, n_l) each, at a minimum of energy + beta/2 |v_L - target|^2.

        Args:
            x, target: inputs and desired outputs, the same for all members or (member, batch, n).
            beta: strength of the nudge; its sign is the phase, 0 with no target the free one.
            start: states to start from, as returned: those of the free phase for a nudged one; None is zero.
        """
        raise NotImplementedError

    def energy(self, x: Images, states: States) -> Float[Tensor, "member batch"]:
        """The function of the states that the free phase minimises."""
        raise NotImplementedError

    def has_minimum(self, beta: float) -> Bool[Tensor, " member"]:
        """Members whose energy, nudged by beta, has a minimum."""
        return torch.ones(self.members, dtype=torch.bool, device=self.biases[0].device)

    def relax_phases(self, x: Images, target: Targets, nudges: Nudges, iterations: int) -> tuple[States, PhaseStates]:
        """The free state, and the two states that go on from it with each nudge for as many iterations again.

        A nudge of 0 is relaxed on, too: what the free phase left undone then cancels in the difference.
        """
        free = self.relax(x, iterations)
        return free, self.relax_nudged(x, target, nudges.tolist(), iterations, free)

    def relax_nudged(
        self, x: Images, target: Targets, nudges: Sequence[float], iterations: int, start: States | None
    ) -> PhaseStates:
        """The two states that each nudge leads to from `start`, or from zero; a nudge of 0 is a free phase."""
        pair = [self.relax(x, iterations, target if beta else None, beta, start) for beta in nudges]
        return [torch.stack(layer, 1) for layer in zip(*pair, strict=True)]

    def contrast(self, x: Images, states: PhaseStates, width: float | Tensor) -> Gradient:
        """Derivative by the parameters of (energy in the upper phase minus energy in the lower) / width, batch mean.

        Args:
            states: what is read of the two phases, upper first, one (member, 2, batch, n_l) a layer.
            width: difference of the nudges.
        """
        twin = copy(self)
        twin.weights = [w.detach().requires_grad_() for w in self.weights]
        twin.biases = [b.detach().requires_grad_() for b in self.biases]
        with torch.enable_grad():
            upper, lower = (twin.energy(x, [v[:, phase] for v in states]) for phase in (0, 1))
            total = ((upper - lower) / width).mean(1).sum()
            derivatives = torch.autograd.grad(total, [*twin.weights, *twin.biases])
        return Gradient(list(derivatives[: len(self.weights)]), list(derivatives[len(self.weights) :]))

    def update(self, gradient: Gradient, rates: Rates, bias_rates: Rates) -> None:
        """A step of gradient descent, in place."""
        for w, b, g_w, g_b, rate, bias_rate in zip(
            self.weights, self.biases, *gradient, rates, bias_rates, strict=True
        ):
            w.sub_(rate[:, None, None] * g_w)
            b.sub_(bias_rate[:, None] * g_b)

    def sampled(self, states: PhaseStates, most: int) -> PhaseStates:
        """States of about `most` units of each layer, as far as `contrast` can do with some of the units."""
        return states


class DeepResistiveNetwork(Network):
    """An ensemble of deep resistive networks of one shape.

    Not a Hopfield network: its energy is quadratic and the only nonlinearity is the diodes' bounds. Members are
    independent; those with equal seeds start from equal conductances. Source: arXiv:2402.11674.

    Args:
        sizes: units per layer, n_0 … n_L; the hidden ones are even (half of the diodes point each way).
        input_gain: amplification A of the input voltages (V per unit of x).
        members: number of independent networks relaxed side by side.
        seed: of the initial conductances; one for all members, or a sequence of one a member.
        dtype, device: of all tensors. Initial values are drawn in float64 on the CPU, so they do not depend on either.

    Attributes:
        weights: conductances W_l >= 0 (S), one (member, n_pre, n_post) a layer; the first has 2 n_0 rows, ordered
            [+x, -x]. Initially uniform in ±sqrt(1/n_pre) with the negatives set to 0.
        biases: bias currents b_l (A), one (member, n_post) a layer, initially 0.

    Raises:
        ValueError: for an argument that makes no network, by its name.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        input_gain: float,
        members: int = 1,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.sizes = checks.sizes(sizes)
        if any(n % 2 for n in self.sizes[1:-1]):
            raise ValueError(f"sizes = {self.sizes}: hidden widths must be even, half of the diodes point each way")
        self.input_gain = checks.number("input_gain", input_gain, above=0.0)
        members, device = checks.count("members", members), checks.device(device)
        seeds = checks.seeds(seed, members)
        self.weights: Weights = [
            torch.empty(members, pre, post, dtype=checks.dtype(dtype), device=device)
            for pre, post in pairwise((2 * self.sizes[0], *self.sizes[1:]))
        ]
        for s in sorted(set(seeds)):
            generator = torch.Generator().manual_seed(s)
            for w in self.weights:  # one layer after the other and in place: with wide ones this is where memory peaks
                values = torch.rand(w.shape[1:], generator=generator, dtype=torch.float64)
                values.mul_(2).sub_(1).mul_(sqrt(1 / w.shape[1])).clamp_min_(0)
                for member in (m for m in range(members) if seeds[m] == s):
                    w[member] = values
        self.biases: Biases = [torch.zeros(members, n, dtype=dtype, device=device) for n in self.sizes[1:]]

    def relax(
        self, x: Images, iterations: int, target: Targets | None = None, beta: float = 0.0, start: States | None = None
    ) -> States:
        """Voltages (V) after `iterations` sweeps of coordinate descent; target in V, beta a conductance (S).

        Raises:
            ValueError: for a target without beta, a beta so negative that the energy has no minimum, other shapes.
        """
        x, iterations = checks.images(self, x), checks.count("iterations", iterations)
        target, beta = checks.nudge(self, target, beta, x.shape[-2])
        if not bool(self.has_minimum(beta).all()):
            smallest = float(self.weights[-1].sum(1).min())
            raise ValueError(
                f"beta = {abs(beta):g}: must stay below the least total conductance of an output unit, {smallest:.3g} S"
            )
        circuit = self._circuit(x)
        start = None if start is None else [v[:, None] for v in start]
        states = self._settle(*circuit, iterations, start, target, x.new_tensor([beta]))
        return [v[:, 0].expand(self.members, x.shape[-2], -1) for v in states]

    def energy(self, x: Images, states: States) -> Float[Tensor, "member batch"]:
        """Half the dissipated power minus the biases' work (W), the function that `relax` minimises."""
        amplified = self.input_gain * batch_of(x)
        voltages = [torch.cat([amplified, -amplified], -1).expand(self.members, -1, -1), *states]
        power = sum(
            0.5 * ((pre**2) @ w.sum(2, keepdim=True) + (post**2) @ w.sum(1)[..., None])[..., 0]
            - ((pre @ w) * post).sum(-1)
            for w, pre, post in zip(self.weights, voltages[:-1], voltages[1:], strict=True)
        )
        work = sum((v * b[:, None]).sum(-1) for v, b in zip(states, self.biases, strict=True))
        return torch.as_tensor(power - work)

    def has_minimum(self, beta: float) -> Bool[Tensor, " member"]:
        """Members whose output units all have a total conductance above -beta (NaN: all that could be told apart)."""
        return ~(self.weights[-1].sum(1).amin(1) <= -beta) if beta < 0 else super().has_minimum(beta)

    def relax_phases(self, x: Images, target: Targets, nudges: Nudges, iterations: int) -> tuple[States, PhaseStates]:
        """The free phase, then both nudged ones side by side: a layer is computed twice once they differ in it."""
        circuit = self._circuit(x)
        free = self._settle(*circuit, iterations)
        nudged = self._settle(*circuit, iterations, free, target, nudges)
        return [v[:, 0] for v in free], [v.expand(-1, 2, x.shape[-2], -1) for v in nudged]

    def contrast(self, x: Images, states: PhaseStates, width: float | Tensor) -> Gradient:
        """Half the squared drops in the upper phase minus those in the lower, over `width`, averaged over the batch.

        Written in sums and differences of the two phases: for drops a - b,
        1/2 d(a - b)^2 = m_a d_a + m_b d_b - (m_a d_b + d_a m_b) with m the mean and d the difference of the phases. One
        product of rank 2 batch and two vectors a layer, and no cancellation between large, nearly equal products. The
        estimate for a conductance needs its two ends alone, so `states` may be those of some units.
        """
        amplified = self.input_gain * batch_of(x)
        scale = 1 / (width * amplified.shape[-2])
        difference = [v[:, 0] - v[:, 1] for v in states]
        mean = [0.5 * (v[:, 0] + v[:, 1]) for v in states]
        square = [scale * (m * d).sum(1) for m, d in zip(mean, difference, strict=True)]
        product, column = amplified.mT @ (scale * difference[0]), square[0][:, None]
        weights = [torch.cat([column - product, column + product], 1)]
        for pre, post in pairwise(range(len(states))):
            cross = torch.cat([mean[pre], difference[pre]], 1).mT @ torch.cat([difference[post], mean[post]], 1)
            weights.append(square[pre][:, :, None] + square[post][:, None] - scale * cross)
        return Gradient(weights, [-scale * d.sum(1) for d in difference])

    def update(self, gradient: Gradient, rates: Rates, bias_rates: Rates) -> None:
        """A step of gradient descent, in place, after which conductances are clamped at >= 0."""
        super().update(gradient, rates, bias_rates)
        for w in self.weights:
            w.clamp_min_(0)

    def sampled(self, states: PhaseStates, most: int) -> PhaseStates:
        """States of units at equal distances, for the two halves of a layer differ."""
        return [v[..., :: max(1, v.shape[-1] // most)] for v in states]

    def bounded(self, v: Voltages, layer: int) -> Voltages:
        """Hidden units at the bounds of their diodes: half conduct only upwards, half only downwards; layers from 0."""
        positive = torch.arange(v.shape[-1], device=v.device) < v.shape[-1] // 2
        return torch.where(positive, v.clamp_min(0), v.clamp_max(0))

    def _circuit(self, x: Images) -> tuple[PhaseStates, list[Float[Tensor, "member 1 1 _n"]]]:
        """Currents into each layer from outside (A), and the conductances that meet at each unit, summed (S).

        Constant over a relaxation, so computed once.
        """
        plus, minus = self.weights[0].chunk(2, 1)
        currents = [b[:, None, None] for b in self.biases]
        currents[0] = currents[0] + ((self.input_gain * batch_of(x)) @ (plus - minus))[:, None]
        totals = [w.sum(1) for w in self.weights]
        totals = [t + w.sum(2) for t, w in zip(totals, self.weights[1:], strict=False)] + totals[-1:]
        # A unit that has lost every conductance floats: it stays at 0 V instead of becoming 0/0.
        return currents, [t.clamp_min(torch.finfo(t.dtype).tiny)[:, None, None] for t in totals]

    def _settle(
        self,
        currents: PhaseStates,
        totals: list[Float[Tensor, "member 1 1 _n"]],
        iterations: int,
        start: PhaseStates | None = None,
        target: Targets | None = None,
        nudges: Float[Tensor, " phase"] | None = None,
    ) -> PhaseStates:
        """Coordinate descent on the energy, all phases side by side (arXiv:2402.11674), in a circuit of `_circuit`.

        Each layer in turn goes to its exact minimum given its neighbours; layers 1, 3, 5 … together, then 2, 4, 6 …;
        one such pair is one iteration. A `start` of None is zero, whose products are left out.
        """
        inner, last = self.weights[1:], len(self.biases) - 1
        v: list[Tensor | None] = [None] * (last + 1) if start is None else list(start)
        for _ in range(iterations):
            for layer in (*range(0, last + 1, 2), *range(1, last + 1, 2)):
                current, total = currents[layer], totals[layer]
                if layer and (below := v[layer - 1]) is not None:
                    current = current + _product(below, inner[layer - 1])
                if layer < last and (above := v[layer + 1]) is not None:
                    current = current + _product(above, inner[layer].mT)
                if layer == last and target is not None and nudges is not None:
                    beta = nudges[:, None, None]
                    current, total = current + beta * batch_of(target)[:, None], total + beta
                v[layer] = current / total if layer == last else self.bounded(current / total, layer)
        unmoved = (b.new_zeros(len(b), 1, 1, b.shape[1]) for b in self.biases)
        return [zero if s is None else s for s, zero in zip(v, unmoved, strict=True)]


def batch_of(x: Float[Tensor, "*member batch n"]) -> Float[Tensor, "member batch n"]:
    """x with its member axis, of length 1 where all members share it."""
    return x if x.ndim == 3 else x[None]


def generators_of(seed: int, x: Float[Tensor, "_member batch n_0"], beta: float) -> list[torch.Generator]:
    """Of the noise within one phase of a relaxation, one for each set of images: the same call has the same noise."""
    named = [f"{seed} {beta!r} ".encode() + images.cpu().numpy().tobytes() for images in x]
    seeds = [int.from_bytes(hashlib.blake2b(name, digest_size=7).digest()) for name in named]
    return [torch.Generator().manual_seed(s) for s in seeds]


def _product(
    v: Float[Tensor, "member phase batch n"], w: Float[Tensor, "member n m"]
) -> Float[Tensor, "member phase batch m"]:
    """v w in one batched product: phase and batch are rows of the same matrix."""
    return (v.flatten(1, 2) @ w).unflatten(1, v.shape[1:3])
