"""Equilibrium Propagation: the estimate of the gradient from what is read in two phases.

Free phase, nudged phase, contrast, update (arXiv:1602.05179; for resistive networks arXiv:2402.11674). The estimate is
the derivative by the parameters of the energy in one phase minus that in the other, over the difference of the nudges.
Everything the rule sees of the voltages passes through a read-out; everything it knows of a network is in `Network`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from . import checks
from .networks import Gradient, Images, Network, Nudges, PhaseStates, Rates, Targets
from .readout import Readout, by_layer
from .schedule import drawn, estimated

# Of the gradient: which nudged phases it compares.
Estimator = Literal["centered", "positive", "negative"]
# Nudge of the two phases in units of beta, upper first: what the contrast subtracts is upper minus lower.
NUDGES: dict[Estimator, tuple[int, int]] = {"centered": (1, -1), "positive": (1, 0), "negative": (0, -1)}


class Rule(NamedTuple):
    """How a step of training learns; the biases' rates are `bias_rate` times those of the weights."""

    nudges: Nudges
    iterations: int
    rates: Rates
    bias_rate: float
    readout: Readout | None


def gradient(
    net: Network,
    x: Images,
    target: Targets,
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
        x, target: inputs and desired output voltages (V), with or without a member axis; one-hot for classes.
        beta: nudging conductance, > 0 (S).
        iterations: of the free phase, and of each nudged phase from the free state.
        estimator: "centered" (+beta against -beta, error O(beta^2)), "positive" (+beta against 0) or "negative"
            (0 against -beta), error O(beta).
        readout: what is read of the voltages; None reads them exactly. Members share the random numbers. A `Schedule`
            reads as at the beginning of training.
        generator: of the read-out noise; None uses torch's global one.

    Raises:
        ValueError: for beta <= 0, beta too large for the outputs' conductances, another estimator, wrong shapes.
    """
    checks.choice("estimator", estimator, tuple(NUDGES))
    beta, iterations = checks.number("beta", beta, above=0.0), checks.count("iterations", iterations)
    x = checks.images(net, x)
    target = checks.targets(net, target, x.shape[-2])
    checks.names_classes(target)
    states = phases(net, x, target, beta=beta, iterations=iterations, estimator=estimator)
    read, width = states, beta * (NUDGES[estimator][0] - NUDGES[estimator][1])
    if readout is not None:
        checks.readout(readout, net)
        shape = 2, states[0].shape[2], sum(net.sizes[1:])
        noise = drawn(readout, shape, generator, net.sizes[1:], images=0)
        read = readout.read(states, by_layer(None if noise is None else noise.to(states[0]), states))
    return estimated(readout, lambda v: net.contrast(x, v, width), read, states)


def phases(
    net: Network, x: Images, target: Targets, *, beta: float, iterations: int, estimator: Estimator
) -> PhaseStates:
    """Voltages in the two phases that the estimator compares, upper first: nudged ones start at the free state."""
    free = net.relax(x, iterations)
    pairs = [net.relax(x, iterations, target, sign * beta, free) if sign else free for sign in NUDGES[estimator]]
    return [torch.stack(pair, 1) for pair in zip(*pairs, strict=True)]


def step(
    net: Network, x: Images, target: Targets, noise: Float[Tensor, "#member *draws 2 batch units"] | None, rule: Rule
) -> Float[Tensor, "member batch n_L"]:
    """One step of training: free phase, nudged phases, contrast of what is read, update of `net` in place.

    Returns the free outputs (V), which are the predictions before the update.
    """
    free, states = net.relax_phases(x, target, rule.nudges, rule.iterations)
    read = states if rule.readout is None else rule.readout.read(states, by_layer(noise, states))
    estimate = estimated(rule.readout, lambda v: net.contrast(x, v, rule.nudges[0] - rule.nudges[1]), read, states)
    net.update(estimate, rule.rates, rule.bias_rate * rule.rates)
    return free[-1]
