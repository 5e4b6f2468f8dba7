"""Equilibrium Propagation: the estimate of the gradient from what is read in two phases.

Free phase, nudged phase, contrast (arXiv:1602.05179; for resistive networks arXiv:2402.11674). The estimate for
one conductance is local: half the squared voltage drop in one phase minus that in the other, over the difference of the
nudges. Everything the rule sees of the voltages passes through a read-out model.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .networks import Biases, DeepResistiveNetwork, PhaseStates, Weights, batch_of
from .readout import Readout

Estimator = Literal["centered", "positive", "negative"]  # of the gradient: which nudged phases it compares

# Nudge of the two phases in units of beta, upper first: what the contrast subtracts is upper minus lower.
NUDGES: dict[Estimator, tuple[int, int]] = {"centered": (1, -1), "positive": (1, 0), "negative": (0, -1)}


class Gradient(NamedTuple):
    """Batch means of the estimate of dC/dW (V^2, one (member, n_pre, n_post) a layer) and dC/db (V)."""

    weights: Weights
    biases: Biases


class Contrast(NamedTuple):
    """The estimate before it is spread over the doubled input conductances.

    With input rows +x and -x the estimate of the first layer is `column - product` and `column + product`.
    """

    product: Float[Tensor, "member n_0 n_1"]
    column: Float[Tensor, "member n_1"]
    inner: Weights
    biases: Biases


def gradient(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "*member batch n_0"],
    target: Float[Tensor, "*member batch n_L"],
    *,
    beta: float,
    iterations: int,
    estimator: Estimator = "centered",
    readout: Readout | None = None,
    generator: torch.Generator | None = None,
) -> Gradient:
    """EP estimate of the gradient of 1/2 |v_L - target|^2, averaged over the batch.

    Args:
        net: left unchanged.
        x, target: inputs and desired output voltages (V), with or without a member axis.
        beta: nudging conductance, > 0 (S).
        iterations: of the free phase, and of each nudged phase from the free state.
        estimator: "centered" (+beta against -beta, error O(beta^2)), "positive" (+beta against 0) or "negative"
            (0 against -beta), error O(beta).
        readout: what is read of the voltages; None reads them exactly. Members share the random numbers.
        generator: of the read-out noise; None uses torch's global one.

    Raises:
        ValueError: for beta <= 0, beta too large for the outputs' conductances, or another estimator.
    """
    if not beta > 0:
        raise ValueError(f"beta = {beta}: must be > 0, the estimator's name carries the sign")
    if estimator not in NUDGES:
        raise ValueError(f"estimator = {estimator!r}: allowed are {', '.join(map(repr, NUDGES))}")
    states = phases(net, x, target, beta=beta, iterations=iterations, estimator=estimator)
    if readout is not None:
        units = sum(net.sizes[1:])
        noise = readout.noise((2, states[0].shape[2], units), generator)[None].to(states[0])
        states = read(states, readout.scale(net.members).to(states[0]), noise)
    width = beta * (NUDGES[estimator][0] - NUDGES[estimator][1])
    estimate = contrast(states, net.input_gain * batch_of(x), width)
    return Gradient(spread(estimate), estimate.biases)


def phases(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "*member batch n_0"],
    target: Float[Tensor, "*member batch n_L"],
    *,
    beta: float,
    iterations: int,
    estimator: Estimator,
) -> PhaseStates:
    """Voltages in the two phases that the estimator compares, upper first: nudged ones start at the free state."""
    free = net.relax(x, iterations)
    pairs = [
        net.relax(x, iterations, target=target, beta=sign * beta, start=free) if sign else free
        for sign in NUDGES[estimator]
    ]
    return [torch.stack(pair, 1) for pair in zip(*pairs, strict=True)]


def spread(estimate: Contrast) -> Weights:
    """The estimate for every conductance, those of the inputs' inverted copies included."""
    first = torch.cat([estimate.column[:, None] - estimate.product, estimate.column[:, None] + estimate.product], 1)
    return [first, *estimate.inner]


def read(
    states: PhaseStates, scale: Float[Tensor, " member"], noise: Float[Tensor, "#member 2 batch units"]
) -> PhaseStates:
    """Voltages as read: v + scale * noise, the noise split over the layers."""
    parts = noise.split([v.shape[-1] for v in states], -1)
    return [v + scale[:, None, None, None] * xi for v, xi in zip(states, parts, strict=True)]


def contrast(states: PhaseStates, amplified: Float[Tensor, "#member batch n_0"], width: float | Tensor) -> Contrast:
    """Half the squared drops in the upper phase minus those in the lower, over `width`, averaged over the batch.

    Written in sums and differences of the two phases: for drops a - b,
    1/2 d(a - b)^2 = m_a d_a + m_b d_b - (m_a d_b + d_a m_b) with m the mean and d the difference of the phases. One
    product of rank 2 batch and two vectors a layer, and no cancellation between large, nearly equal products.
    """
    scale = 1 / (width * amplified.shape[-2])
    difference = [v[:, 0] - v[:, 1] for v in states]
    mean = [0.5 * (v[:, 0] + v[:, 1]) for v in states]
    square = [scale * (m * d).sum(1) for m, d in zip(mean, difference, strict=True)]
    product = amplified.mT @ (scale * difference[0])
    inner = []
    for pre in range(len(states) - 1):
        post = pre + 1
        cross = torch.cat([mean[pre], difference[pre]], 1).mT @ torch.cat([difference[post], mean[post]], 1)
        inner.append(square[pre][:, :, None] + square[post][:, None] - scale * cross)
    return Contrast(product, square[0], inner, [-scale * d.sum(1) for d in difference])
