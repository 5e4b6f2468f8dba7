"""Equilibrium Propagation: the estimate of the gradient from what is read in two phases.

Free phase, nudged phase, contrast, update (arXiv:1602.05179; for resistive networks arXiv:2402.11674). The estimate is
the derivative by the parameters of the energy in one phase minus that in the other, over the difference of the nudges.
Everything the rule sees of the voltages passes through a read-out; everything it knows of a network is in `Network`.
"""

from __future__ import annotations

from copy import copy
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..messages import shown
from . import checks
from .networks import Gradient, Images, Network, Nudges, PhaseStates, Rates, States, Targets
from .optimisers import Optimiser
from .readout import Readout, by_layer
from .schedule import drawn, estimated

# Of the gradient: which nudged phases it compares; or none, the baseline that differentiates the free phase.
Estimator = Literal["centered", "positive", "negative", "backpropagation"]
# Nudge of the two phases in units of beta, upper first: what the contrast subtracts is upper minus lower.
NUDGES: dict[Estimator, tuple[int, int]] = {"centered": (1, -1), "positive": (1, 0), "negative": (0, -1)}
ESTIMATORS: tuple[Estimator, ...] = (*NUDGES, "backpropagation")


class Rule(NamedTuple):
    """How a step of training learns; the biases' rates are `bias_rate` times those of the weights."""

    nudges: Nudges
    iterations: int
    rates: Rates
    bias_rate: float
    readout: Readout | None
    nudged_iterations: int | None = None  # None: as many as in the free phase
    cold: bool = False
    backpropagation: bool = False  # instead of nudges
    optimiser: Optimiser | None = None

    def only_torch(self) -> str:
        """What of it the other engines don't know."""
        asked = {
            "backpropagation": self.backpropagation,
            "an optimiser": self.optimiser is not None,
            "cold nudged phases": self.cold,
            "nudged phases of another length": self.nudged_iterations not in (None, self.iterations),
        }
        return ", ".join(name for name, is_asked in asked.items() if is_asked)


def check_minimum(net: Network, nudges: Tensor) -> None:
    """ValueError where the outputs' conductances are too small for a nudged phase to have a steady state."""
    lowest = float(nudges.min())
    if not bool(net.has_minimum(lowest).all()):
        raise ValueError(f"beta = {-lowest:g}: a nudged phase has no steady state in this network")


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
    nudged_iterations: int | None = None,
    cold: bool = False,
) -> Gradient:
    """EP estimate of the gradient of 1/2 |v_L - target|^2, averaged over the batch.

    Args:
        net: left unchanged.
        x, target: inputs and desired output voltages (V), with or without a member axis; one-hot for classes.
        beta: nudging conductance, > 0 (S).
        iterations: of the free phase, and of each nudged phase from the free state.
        estimator: "centered" (+beta against -beta, error O(beta^2)), "positive" (+beta against 0) or "negative"
            (0 against -beta), error O(beta); or "backpropagation" through the unrolled free phase, without a nudge.
        readout: what is read of the voltages; None reads them exactly. Members share the random numbers. A `Schedule`
            reads as at the beginning of training.
        generator: of the read-out noise; None uses torch's global one.
        nudged_iterations: of each nudged phase; None: as many as of the free one.
        cold: both phases that are compared start at zero. What the free phase left undone then cancels; where a
            one-sided estimate goes on from the free state it is left in it, over beta (arXiv:2604.23806).

    Raises:
        ValueError: for beta <= 0, beta too large for the outputs' conductances, another estimator, wrong shapes.
    """
    check_phases(estimator, readout, nudged_iterations, cold)
    beta, iterations = checks.number("beta", beta, above=0.0), checks.count("iterations", iterations)
    x = checks.images(net, x)
    target = checks.targets(net, target, x.shape[-2])
    checks.names_classes(target)
    if estimator == "backpropagation":
        return backpropagated(net, x, target, iterations)[1]
    states = phases(
        net, x, target, beta=beta, iterations=iterations, estimator=estimator,
        nudged_iterations=nudged_iterations, cold=cold,
    )  # fmt: skip
    read, width = states, beta * (NUDGES[estimator][0] - NUDGES[estimator][1])
    if readout is not None:
        checks.readout(readout, net)
        shape = 2, states[0].shape[2], sum(net.sizes[1:])
        noise = drawn(readout, shape, generator, net.sizes[1:], images=0)
        read = readout.read(states, by_layer(None if noise is None else noise.to(states[0]), states))
    return estimated(readout, lambda v: net.contrast(x, v, width), read, states)


def check_phases(estimator: Estimator, readout: Readout | None, nudged_iterations: int | None, cold: bool) -> None:
    """ValueError for another estimator, phases that can't be, or what backpropagation, which has none, can't do."""
    checks.choice("estimator", estimator, ESTIMATORS)
    if nudged_iterations is not None:
        checks.count("nudged_iterations", nudged_iterations)
    if not isinstance(cold, bool):
        raise ValueError(f"cold = {shown(cold)}: must be True or False")
    if estimator == "backpropagation":
        for name, value in {"readout": readout, "nudged_iterations": nudged_iterations, "cold": cold or None}.items():
            if value is not None:
                raise ValueError(f"{name} = {shown(value)}: backpropagation reads no voltages and nudges none")


def phases(
    net: Network, x: Images, target: Targets, *, beta: float, iterations: int, estimator: Estimator,
    nudged_iterations: int | None = None, cold: bool = False,
) -> PhaseStates:  # fmt: skip
    """Voltages in the two phases that the estimator compares, upper first: nudged ones start at the free state.

    Cold ones start at zero, and so does what they are compared with, for as many iterations.
    """
    nudged = nudged_iterations or iterations
    if cold:
        return net.relax_nudged(x, target, [sign * beta for sign in NUDGES[estimator]], nudged, None)
    free = net.relax(x, iterations)
    pairs = [net.relax(x, nudged, target, sign * beta, free) if sign else free for sign in NUDGES[estimator]]
    return [torch.stack(pair, 1) for pair in zip(*pairs, strict=True)]


def relaxed(net: Network, x: Images, target: Targets, rule: Rule) -> tuple[States, PhaseStates]:
    """The free state and both phases of a step of training, in the network's own way where nothing else is asked."""
    if not rule.cold and rule.nudged_iterations is None:
        return net.relax_phases(x, target, rule.nudges, rule.iterations)
    free, nudged = net.relax(x, rule.iterations), rule.nudged_iterations or rule.iterations
    return free, net.relax_nudged(x, target, rule.nudges.tolist(), nudged, None if rule.cold else free)


def backpropagated(
    net: Network, x: Images, target: Targets, iterations: int
) -> tuple[Float[Tensor, "member batch n_L"], Gradient]:
    """Free outputs, and the gradient of 1/2 |v_L - target|^2, batch mean, by autograd through the free phase unrolled.

    With enough iterations for the steady state it is the limit of the estimates for beta -> 0 (arXiv:1602.05179).
    """
    twin = copy(net)
    twin.weights = [w.detach().requires_grad_() for w in net.weights]
    twin.biases = [b.detach().requires_grad_() for b in net.biases]
    with torch.enable_grad():
        output = twin.relax(x, iterations)[-1]
        cost = 0.5 * (output - target).square().sum() / output.shape[1]
        slopes = torch.autograd.grad(cost, [*twin.weights, *twin.biases])
    return output.detach(), Gradient(list(slopes[: len(net.weights)]), list(slopes[len(net.weights) :]))


def step(
    net: Network, x: Images, target: Targets, noise: Float[Tensor, "#member *draws 2 batch units"] | None, rule: Rule
) -> Float[Tensor, "member batch n_L"]:
    """One step of training: free phase, nudged phases, contrast of what is read, update of `net` in place.

    Returns the free outputs (V), which are the predictions before the update.
    """
    if rule.backpropagation:
        output, estimate = backpropagated(net, x, target, rule.iterations)
    else:
        free, states = relaxed(net, x, target, rule)
        read = states if rule.readout is None else rule.readout.read(states, by_layer(noise, states))
        width = rule.nudges[0] - rule.nudges[1]
        output, estimate = free[-1], estimated(rule.readout, lambda v: net.contrast(x, v, width), read, states)
    direction = estimate if rule.optimiser is None else rule.optimiser.direction(estimate)
    net.update(direction, rule.rates, rule.bias_rate * rule.rates)
    return output
