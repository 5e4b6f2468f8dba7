"""Deep resistive networks: parameters, energy, and the relaxation to a steady state.

A deep resistive network (DRN, arXiv:2402.11674) is a layered circuit of conductances. Its steady state minimises half
the dissipated power

    E(v) = sum_l 1/2 sum_ij W_l,ij (v_l,i - v_{l+1},j)^2 - sum_l b_l . v_l

under the bounds that the diodes set: in every hidden layer the first half of the units keeps v >= 0, the second half
v <= 0; output units are linear. The input is duplicated and amplified, v_0 = A [x, -x]. That is a convex quadratic
programme, solved here by exact coordinate descent, layer by layer.

The functions work on tensors with explicit axes and know no network object; `DeepResistiveNetwork` holds parameters.
Inside, a state has the axes (member, phase, batch, unit). The phase axis has length 1 as long as every phase agrees
and becomes 2 (+beta, -beta) only in the layers that the nudge has reached, so nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

# An underscore marks a length that differs from one entry of the list to the next.
Weights = list[Float[Tensor, "member _n_pre _n_post"]]
Biases = list[Float[Tensor, "member _n_post"]]
States = list[Float[Tensor, "member batch _n"]]
PhaseStates = list[Float[Tensor, "member _phase _batch _n"]]


class DeepResistiveNetwork:
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
        ValueError: for sizes that make no network, a non-positive gain, or a number of seeds other than `members`.
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
        sizes = tuple(int(n) for n in sizes)
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes = {sizes}: at least an input and an output layer of one unit or more are needed")
        if any(n % 2 for n in sizes[1:-1]):
            raise ValueError(f"sizes = {sizes}: hidden widths must be even, half of the diodes point each way")
        if not input_gain > 0:
            raise ValueError(f"input_gain = {input_gain}: must be > 0")
        if members < 1:
            raise ValueError(f"members = {members}: must be >= 1")
        self.sizes, self.input_gain = sizes, float(input_gain)
        seeds = member_seeds(seed, members)
        self.weights: Weights = [
            torch.empty(members, pre, post, dtype=dtype, device=device)
            for pre, post in pairwise((2 * sizes[0], *sizes[1:]))
        ]
        for s in sorted(set(seeds)):
            for w, drawn in zip(self.weights, _initial_conductances(sizes, s), strict=True):
                for member in (m for m in range(members) if seeds[m] == s):
                    w[member] = drawn
        self.biases: Biases = [torch.zeros(members, n, dtype=dtype, device=device) for n in sizes[1:]]

    @property
    def members(self) -> int:
        return self.weights[0].shape[0]

    def relax(
        self,
        x: Float[Tensor, "*member batch n_0"],
        iterations: int,
        target: Float[Tensor, "*member batch n_L"] | None = None,
        beta: float = 0.0,
        start: States | None = None,
    ) -> States:
        """Voltages after `iterations` sweeps of coordinate descent.

        Free phase: from zero, without target. Nudged phase: with a target, ±beta, and the free state as start.

        Args:
            x: inputs (batch, n_0), shared by all members, or (member, batch, n_0).
            target: desired output voltages (V), (batch, n_L) or (member, batch, n_L).
            beta: nudging conductance (S) of the cost 1/2 |v_L - target|^2; its sign is the phase.
            start: states to start from, as returned; None is zero.

        Returns:
            One (member, batch, n_l) a layer, l = 1 … L (V).

        Raises:
            ValueError: for a target without beta, and for a beta so negative that the energy has no minimum.
        """
        if (target is None) != (beta == 0.0):
            raise ValueError(
                f"beta = {beta}: a nudged phase takes a target and a beta other than 0, a free phase neither"
            )
        if beta < 0 and (smallest := float(self.weights[-1].sum(1).min())) <= -beta:
            raise ValueError(
                f"beta = {beta}: its size must stay below the least total conductance of an output unit, {smallest:.3g}"
            )
        drive = input_drive(signed_input(self.weights[0]), x, self.input_gain)
        states = settle(
            self.weights[1:],
            self.biases,
            total_conductances(self.weights),
            drive,
            iterations,
            states=None if start is None else [v[:, None] for v in start],
            target=None if target is None else batch_of(target)[:, None],
            beta=drive.new_full((1, 1, 1), beta),
        )
        batch = drive.shape[-2]
        return [v[:, 0].expand(self.members, batch, -1) for v in states]

    def energy(self, x: Float[Tensor, "*member batch n_0"], states: States) -> Float[Tensor, "member batch"]:
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


def member_seeds(seed: int | Sequence[int], members: int) -> tuple[int, ...]:
    """One seed a member: an integer is shared, a sequence must have `members` of them (else ValueError)."""
    seeds = (seed,) * members if isinstance(seed, int) else tuple(int(s) for s in seed)
    if len(seeds) != members:
        raise ValueError(f"seed has {len(seeds)} values for {members} members: one for all, or one for each")
    return seeds


def batch_of(x: Float[Tensor, "*member batch n"]) -> Float[Tensor, "member batch n"]:
    """x with its member axis, of length 1 where all members share it."""
    return x if x.ndim == 3 else x[None]


def signed_input(first: Float[Tensor, "member doubled n_1"]) -> Float[Tensor, "member n_0 n_1"]:
    """W+ - W-: what the doubled input layer amounts to in a product with x."""
    plus, minus = first.chunk(2, 1)
    return plus - minus


def input_drive(
    signed: Float[Tensor, "member n_0 n_1"], x: Float[Tensor, "*member batch n_0"], gain: float
) -> Float[Tensor, "member 1 batch n_1"]:
    """Current that the clamped inputs push into layer 1 (A); constant over a relaxation, so computed once."""
    return ((gain * batch_of(x)) @ signed)[:, None]


def total_conductances(weights: Weights) -> list[Float[Tensor, "member 1 1 _n"]]:
    """Sum of the conductances that meet at each unit of layer 1 … L (S)."""
    incoming = [w.sum(1) for w in weights]
    outgoing = [w.sum(2) for w in weights[1:]]
    totals = [i + o for i, o in zip(incoming, outgoing, strict=False)] + [incoming[-1]]
    # A unit that has lost every conductance floats: it stays at 0 V instead of becoming 0/0.
    return [t.clamp_min(torch.finfo(t.dtype).tiny)[:, None, None] for t in totals]


def settle(
    inner: Weights,
    biases: Biases,
    totals: list[Float[Tensor, "member 1 1 _n"]],
    drive: Float[Tensor, "member 1 batch n_1"],
    iterations: int,
    *,
    states: PhaseStates | None = None,
    target: Float[Tensor, "#member 1 batch n_L"] | None = None,
    beta: Float[Tensor, "_phase 1 1"] | None = None,
) -> PhaseStates:
    """Coordinate descent on the energy, all phases side by side (arXiv:2402.11674).

    Each layer in turn goes to its exact minimum given its neighbours; layers 1, 3, 5 … together, then 2, 4, 6 …; one
    such pair is one iteration.

    Args:
        inner: conductances of layers 1-2 … (L-1)-L; the input layer enters by `drive`.
        totals: from `total_conductances`.
        states: start (V); None is zero, whose products are left out.
        target, beta: nudge of each phase; a target of None is the free phase.
    """
    last = len(biases) - 1
    v: list[Tensor | None] = [None] * (last + 1) if states is None else list(states)
    for _ in range(iterations):
        for parity in (0, 1):
            for layer in range(parity, last + 1, 2):
                current = biases[layer][:, None, None]
                if layer == 0:
                    current = current + drive
                elif (below := v[layer - 1]) is not None:
                    current = current + _product(below, inner[layer - 1])
                if layer < last and (above := v[layer + 1]) is not None:
                    current = current + _product(above, inner[layer].mT)
                if layer < last:
                    v[layer] = _diodes(current / totals[layer])
                elif target is None or beta is None:
                    v[layer] = current / totals[layer]
                else:
                    v[layer] = (current + beta * target) / (totals[layer] + beta)
    return [
        drive.new_zeros(drive.shape[0], 1, 1, b.shape[1]) if s is None else s for s, b in zip(v, biases, strict=True)
    ]


def _product(
    v: Float[Tensor, "member phase batch n"], w: Float[Tensor, "member n m"]
) -> Float[Tensor, "member phase batch m"]:
    """v w in one batched product: phase and batch are rows of the same matrix."""
    return (v.flatten(1, 2) @ w).unflatten(1, v.shape[1:3])


def _diodes(v: Float[Tensor, "member phase batch n"]) -> Float[Tensor, "member phase batch n"]:
    """The hidden units' bounds: the first half conducts only upwards, the second half only downwards."""
    positive = torch.arange(v.shape[-1], device=v.device) < v.shape[-1] // 2
    return torch.where(positive, v.clamp_min(0), v.clamp_max(0))


def _initial_conductances(sizes: Sequence[int], seed: int) -> Iterator[Float[Tensor, "n_pre n_post"]]:
    """In float64, one layer after the other and in place: with wide layers this is where memory peaks."""
    generator = torch.Generator().manual_seed(seed)
    for pre, post in pairwise((2 * sizes[0], *sizes[1:])):
        drawn = torch.rand(pre, post, generator=generator, dtype=torch.float64)
        yield drawn.mul_(2).sub_(1).mul_(sqrt(1 / pre)).clamp_min_(0)
