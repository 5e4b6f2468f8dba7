"""Equilibrium Propagation as a textbook writes it: what the engine's speed is compared with.

One network at a time, layer by layer: the amplified input and its negative side by side, every sum of conductances
where a formula asks for it, and the estimate of each conductance from the square of its own voltage drop, a tensor
over (batch, n_pre, n_post). The same update as `epkit.train`, up to rounding (tests/test_benchmarks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from epkit import DeepResistiveNetwork


def relax(
    weights: list[Tensor],
    biases: list[Tensor],
    voltages: list[Tensor],
    iterations: int,
    target: Tensor,
    beta: float,
) -> list[Tensor]:
    """Voltages of all layers, the input's first, after sweeps over layers 1, 3, 5 …, then 2, 4, 6 …"""
    voltages, last = list(voltages), len(weights)
    for _ in range(iterations):
        for layer in [*range(1, last + 1, 2), *range(2, last + 1, 2)]:
            current = biases[layer - 1] + voltages[layer - 1] @ weights[layer - 1]
            total = weights[layer - 1].sum(0)
            if layer == last:
                voltages[layer] = (current + beta * target) / (total + beta)
                continue
            v = (current + voltages[layer + 1] @ weights[layer].T) / (total + weights[layer].sum(1))
            up, down = v.chunk(2, 1)
            voltages[layer] = torch.cat([up.clamp(min=0), down.clamp(max=0)], 1)
    return voltages


def step(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,
    target: Tensor,
    *,
    gain: float,
    beta: float,
    iterations: int,
    rates: Sequence[float],
    sigma: float,
) -> None:
    """One training step in place: free phase, both nudged phases, noisy read-out, centred estimate, update, clamp."""
    start = [gain * torch.cat([x, -x], 1), *(x.new_zeros(len(x), b.shape[0]) for b in biases)]
    free = relax(weights, biases, start, iterations, target, 0.0)
    upper, lower = [relax(weights, biases, free, iterations, target, sign * beta) for sign in (1, -1)]
    if sigma:
        upper, lower = [[v[0], *(u + sigma * torch.randn_like(u) for u in v[1:])] for v in (upper, lower)]
    drops = [[(pre[:, :, None] - post[:, None, :]) ** 2 for pre, post in pairwise(v)] for v in (upper, lower)]
    for w, b, rate, up, down, v_up, v_down in zip(
        weights, biases, rates, *drops, upper[1:], lower[1:], strict=True
    ):  # fmt: skip
        w.sub_(rate * 0.5 * (up - down).mean(0) / (2 * beta)).clamp_(min=0)
        b.sub_(rate * (v_down - v_up).mean(0) / (2 * beta))


def train(
    net: DeepResistiveNetwork,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    beta: float,
    iterations: int,
    learning_rates: Sequence[float],
    sigma: float = 0.0,
) -> None:
    """One epoch of each member, one after the other, with the images in the order given."""
    target = one_hot(y, net.sizes[-1]).to(x)
    for member in range(net.members):
        weights, biases = [[p[member] for p in ps] for ps in (net.weights, net.biases)]
        for images, wanted in zip(x.split(batch_size), target.split(batch_size), strict=True):
            step(
                weights, biases, images, wanted, gain=net.input_gain, beta=beta, iterations=iterations,
                rates=learning_rates, sigma=sigma,
            )  # fmt: skip
