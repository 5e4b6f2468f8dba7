"""Steady states and gradients that share no code with `relax`: what the physics is checked against.

The steady state is the minimum of a quadratic under bounds. Where it is known which diodes clamp their unit at 0 V, it
is the solution of one linear system; the primal-dual active set method finds which ones do. The gradient follows by
implicit differentiation of that system, without any nudge. Both need every voltage of a network at once, so they cost
the cube of its units where the relaxation costs its conductances.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..ep import learning
from ..ep.networks import DeepResistiveNetwork, Weights

Inputs = Float[Tensor, "batch n_0"]
Targets = Float[Tensor, "batch n_L"]
Layers = list[Float[Tensor, "batch _n"]]
Vector = Float[Tensor, " n"]
DOUBLE = torch.float64


def steady_state(
    net: DeepResistiveNetwork, x: Inputs, target: Targets | None = None, beta: float = 0.0,
    *, start: Layers | None = None, member: int = 0,
) -> Layers:  # fmt: skip
    """The exact steady state of one member, by the primal-dual active set method (Hintermüller et al. 2002).

    Args:
        start: states (V) whose clamped diodes are the first guess; the answer doesn't depend on it.

    Returns:
        Voltages (V), one float64 (batch, n_l) a layer, l = 1 … L.

    Raises:
        RuntimeError: if beta is so negative that the energy has no minimum, or the active sets don't settle.
    """
    hessian, current, sign = quadratic_energy(net, x, member)
    if target is not None:
        hessian.diagonal()[-target.shape[1] :] += beta
        current[:, -target.shape[1] :] += beta * target
    if start is None:  # all diodes conducting: one system for all inputs
        connected = hessian.diagonal() != 0
        first = torch.zeros_like(current)
        first[:, connected] = _solve(hessian[connected][:, connected], current[:, connected].T).T
    else:
        first = torch.cat(start, 1)
    voltages = [_minimum(hessian, c, sign, (sign * v > 0) | (sign == 0)) for c, v in zip(current, first, strict=True)]
    return list(torch.stack(voltages).split(net.sizes[1:], 1))


def implicit_gradient(
    net: DeepResistiveNetwork, x: Inputs, target: Targets, states: Layers,
    *, shunt: Float[Tensor, "batch units"] | None = None, member: int = 0,
) -> tuple[list[Float[Tensor, "_n_pre _n_post"]], list[Float[Tensor, " _n"]]]:  # fmt: skip
    """Gradient of 1/2 |v_L - target|^2, batch mean, by implicit differentiation of the steady state `states`.

    With H the Hessian of the energy on the units that move and a = H^-1 (v_L - target), the derivative with respect to
    a conductance is minus the product of its drops in v and in a, and with respect to a bias it is a.

    Args:
        shunt: small-signal conductance of each unit's diode (S), for real diodes; None: ideal ones, which clamp
            units at 0 V and leave the others alone.

    Returns:
        One (n_pre, n_post) a layer (V^2), the first with the doubled inputs, and one (n_post,) a layer (V).
    """
    hessian, _, sign = quadratic_energy(net, x, member)
    v = torch.cat(states, 1)
    error, adjoint = torch.zeros_like(v), torch.zeros_like(v)
    error[:, -target.shape[1] :] = states[-1] - target
    for k, moving in enumerate(((v != 0) | (sign == 0)) & (hessian.diagonal() != 0)):
        matrix = hessian[moving][:, moving]
        if shunt is not None:
            matrix = matrix + shunt[k, moving].diag()
        adjoint[k, moving] = _solve(matrix, error[k, moving, None])[:, 0]
    amplified = net.input_gain * torch.cat([x, -x], 1).to(DOUBLE)
    voltages = [amplified, *states]
    adjoints = [torch.zeros_like(amplified), *adjoint.split(net.sizes[1:], 1)]
    weights = [
        (v.mT @ b + a.mT @ w - (v * a).sum(0)[:, None] - (w * b).sum(0)) / len(x)
        for v, w, a, b in zip(voltages[:-1], voltages[1:], adjoints[:-1], adjoints[1:], strict=True)
    ]
    return weights, [a.mean(0) for a in adjoints[1:]]


def quadratic_energy(
    net: DeepResistiveNetwork, x: Inputs, member: int
) -> tuple[Float[Tensor, "units units"], Float[Tensor, "batch units"], Float[Tensor, " units"]]:
    """One member's energy as 1/2 v H v - c v over the voltages v of all units, layers 1 … L one after the other.

    Returns:
        H (S), c (A) for each input, and the sign that a unit's diode lets its voltage have (0: no diode).
    """
    weights = [w[member].to(DOUBLE) for w in net.weights]
    last = len(weights) - 1
    hessian = torch.zeros(sum(net.sizes[1:]), sum(net.sizes[1:]), dtype=DOUBLE)
    current = torch.cat([b[member] for b in net.biases]).to(DOUBLE).repeat(len(x), 1)
    sign, end = torch.zeros(len(hessian), dtype=DOUBLE), 0
    for layer, n in enumerate(net.sizes[1:]):
        begin, end = end, end + n
        hessian[begin:end, begin:end] = weights[layer].sum(0).diag()
        if layer == 0:
            plus, minus = weights[0].chunk(2, 0)
            current[:, :end] += net.input_gain * x.to(DOUBLE) @ (plus - minus)
        else:
            hessian[begin - net.sizes[layer] : begin, begin:end] = -weights[layer]
            hessian[begin:end, begin - net.sizes[layer] : begin] = -weights[layer].T
        if layer < last:
            hessian[begin:end, begin:end] += weights[layer + 1].sum(1).diag()
            sign[begin : begin + n // 2], sign[begin + n // 2 : end] = 1, -1
    return hessian, current, sign


def _solve(matrix: Float[Tensor, "n n"], right: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Solution by Cholesky; torch.linalg.LinAlgError, a RuntimeError, where the energy has no minimum."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def _minimum(hessian: Float[Tensor, "n n"], current: Vector, sign: Vector, free: Bool[Tensor, " n"]) -> Vector:
    """Voltages (V) that minimise 1/2 v H v - c v with sign v >= 0; `free`: a first guess of the units not at 0 V.

    Raises:
        RuntimeError: where there is no minimum, or the active sets don't settle.
    """
    connected = hessian.diagonal() != 0
    for _ in range(100):
        free = free & connected
        v = torch.zeros_like(current)
        v[free] = _solve(hessian[free][:, free], current[free, None])[:, 0]
        slope = hessian @ v - current
        following = torch.where(free, sign * v >= 0, (sign * slope < 0) | (sign == 0)) & connected
        if torch.equal(following, free):
            return v
        free = following
    raise RuntimeError("the active sets don't settle")


def backpropagated(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "*member batch n_0"],
    target: Float[Tensor, "*member batch n_L"],
    *,
    iterations: int,
) -> Weights:
    """The weights' part of the gradient that EP estimates, by autograd through the free phase unrolled.

    With enough iterations for the steady state it is the limit of the estimates for beta -> 0 (arXiv:1602.05179).

    Returns:
        Of 1/2 |v_L - target|^2, batch mean, one (member, n_pre, n_post) a layer (V^2), the first with doubled inputs.
    """
    return learning.backpropagated(net, x, target, iterations)[1].weights


def agreements(estimate: list[Tensor], reference: list[Tensor]) -> list[tuple[float, float]]:
    """Cosine (1) between a gradient estimate and its reference, and relative error (1), of each layer.

    The relative error is the norm of the difference over that of the reference.
    """
    return [
        (float((e * r).sum() / (e.norm() * r.norm())), float((e - r).norm() / r.norm()))
        for e, r in zip(estimate, reference, strict=True)
    ]


def rms(layers: Layers, others: Layers | None = None) -> list[float]:
    """Root mean square of each layer, over inputs and units, or that of its difference from the others."""
    differences = layers if others is None else [v - w for v, w in zip(layers, others, strict=True)]
    return [float(v.square().mean().sqrt()) for v in differences]
