"""The relaxation against oracles that share no code with it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from epkit import DeepResistiveNetwork

DOUBLE = torch.float64


def steady_state(net, member, x, target=None, beta=0.0):
    """Minimise the energy as a bounded quadratic programme (scipy's BVLS) over all free voltages at once."""
    weights = [w[member].numpy() for w in net.weights]
    biases = np.concatenate([b[member].numpy() for b in net.biases])
    sizes = [len(b[member]) for b in net.biases]
    starts = np.cumsum([0, *sizes])
    clamped = net.input_gain * np.concatenate([x, -x])
    hessian, current = np.zeros((starts[-1], starts[-1])), biases.copy()
    for layer, w in enumerate(weights):
        post = slice(starts[layer], starts[layer + 1])
        hessian[post, post] += np.diag(w.sum(0))
        if layer == 0:
            current[post] += clamped @ w
            continue
        pre = slice(starts[layer - 1], starts[layer])
        hessian[pre, pre] += np.diag(w.sum(1))
        hessian[pre, post] -= w
        hessian[post, pre] -= w.T
    low, high = np.full(starts[-1], -np.inf), np.full(starts[-1], np.inf)
    for layer, n in enumerate(sizes[:-1]):
        low[starts[layer] : starts[layer] + n // 2] = 0
        high[starts[layer] + n // 2 : starts[layer + 1]] = 0
    if target is not None:
        output = slice(starts[-2], starts[-1])
        hessian[output, output] += beta * np.eye(sizes[-1])
        current[output] += beta * target
    # 1/2 v'Hv - c'v = 1/2 |Rv - R'^-1 c|^2 + const with H = R'R
    factor = np.linalg.cholesky(hessian).T
    result = lsq_linear(factor, np.linalg.solve(factor.T, current), (low, high), method="bvls", tol=1e-14)
    return np.split(result.x, starts[1:-1])


hidden_layers = st.lists(st.integers(1, 5).map(lambda half: 2 * half), min_size=0, max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 6), hidden=hidden_layers, outputs=st.integers(1, 5), seed=st.integers(0, 10**6),
    nudge=st.sampled_from([0.0, 0.3, -0.1]),
)  # fmt: skip
def test_relaxation_ends_at_the_bounded_minimum(inputs, hidden, outputs, seed, nudge):
    generator = torch.Generator().manual_seed(seed)
    net = DeepResistiveNetwork((inputs, *hidden, outputs), input_gain=3.0, members=2, seed=seed, dtype=DOUBLE)
    # no unit without conductance, so that the minimum is unique
    net.weights = [w + 0.1 + torch.rand(w.shape, generator=generator, dtype=DOUBLE) for w in net.weights]
    net.biases = [torch.randn(b.shape, generator=generator, dtype=DOUBLE) for b in net.biases]
    x = torch.rand(3, inputs, generator=generator, dtype=DOUBLE)
    target = torch.rand(3, outputs, generator=generator, dtype=DOUBLE)
    states = net.relax(x, 400, target if nudge else None, nudge)
    for member in range(2):
        for k in range(3):
            goal = target[k].numpy() if nudge else None
            for v, expected in zip(states, steady_state(net, member, x[k].numpy(), goal, nudge), strict=True):
                np.testing.assert_allclose(v[member, k].numpy(), expected, atol=1e-8, rtol=1e-8)


@pytest.fixture
def net():
    net = DeepResistiveNetwork((4, 6, 8, 3), input_gain=2.0, members=3, seed=(0, 1, 2), dtype=DOUBLE)
    net.weights = [w + 0.05 for w in net.weights]
    net.biases = [
        0.1 * torch.randn(b.shape, generator=torch.Generator().manual_seed(7), dtype=DOUBLE) for b in net.biases
    ]
    return net


@pytest.fixture
def x():
    return torch.rand(5, 4, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


def test_current_is_conserved_at_linear_units_and_blocked_by_diodes(net, x):
    states = net.relax(x, 500)
    amplified = net.input_gain * torch.cat([x, -x], -1).expand(3, -1, -1)
    voltages = [amplified, *states]
    for layer in range(1, len(voltages)):
        inflow = net.biases[layer - 1][:, None] - (voltages[layer] * net.weights[layer - 1].sum(1)[:, None])
        inflow = inflow + voltages[layer - 1] @ net.weights[layer - 1]
        if layer < len(net.weights):
            inflow = inflow + voltages[layer + 1] @ net.weights[layer].mT
            inflow = inflow - voltages[layer] * net.weights[layer].sum(2)[:, None]
        free = voltages[layer] != 0
        if layer == len(net.weights):
            free = torch.ones_like(free)
        torch.testing.assert_close(inflow[free], torch.zeros_like(inflow[free]), atol=1e-9, rtol=0)
        # at a clamped unit the diode carries what is left, and only in its own direction
        half = voltages[layer].shape[-1] // 2
        clamped = torch.where(free, 0, inflow)
        assert (clamped[..., :half] <= 1e-9).all()
        assert (clamped[..., half:] >= -1e-9).all()


def test_diodes_bound_each_half_of_the_hidden_units(net, x):
    *hidden, output = net.relax(10 * x, 7)
    for v in hidden:
        half = v.shape[-1] // 2
        assert (v[..., :half] >= 0).all()
        assert (v[..., half:] <= 0).all()
    assert (output > 0).any()


def test_energy_never_rises_along_the_relaxation(net, x):
    energies = [net.energy(x, net.relax(x, k)) for k in range(1, 8)]
    for before, after in pairwise(energies):
        assert (after <= before + 1e-12).all()


def test_a_members_state_does_not_depend_on_the_others(net, x):
    together = net.relax(x, 6)
    for member in range(3):
        alone = DeepResistiveNetwork((4, 6, 8, 3), input_gain=2.0, dtype=DOUBLE)
        alone.weights = [w[member : member + 1] for w in net.weights]
        alone.biases = [b[member : member + 1] for b in net.biases]
        for v, w in zip(alone.relax(x, 6), together, strict=True):
            torch.testing.assert_close(v[0], w[member], atol=1e-13, rtol=1e-13)


def test_initial_conductances_follow_the_seed_alone():
    one = DeepResistiveNetwork((4, 6, 3), input_gain=1.0, members=3, seed=(5, 2, 5))
    other = DeepResistiveNetwork((4, 6, 3), input_gain=1.0, members=1, seed=2, dtype=DOUBLE)
    assert torch.equal(one.weights[0][0], one.weights[0][2])
    assert torch.equal(one.weights[0][1], other.weights[0][0].float())
    first = DeepResistiveNetwork((400, 100, 10), input_gain=1.0).weights[0]
    assert first.shape == (1, 800, 100)
    assert first.min() == 0
    assert first.max() <= 800**-0.5
    assert abs((first == 0).float().mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (4, 5, 3)}, "hidden widths must be even"),
        ({"sizes": (4,)}, "must be the units of two layers or more"),
        ({"input_gain": 0.0}, "input_gain = 0.0: must be a finite number > 0"),
        ({"members": 0}, "members = 0: must be an integer >= 1"),
        ({"members": 2, "seed": (1, 2, 3)}, "3 values for 2 members"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DeepResistiveNetwork(**({"sizes": (4, 6, 3), "input_gain": 1.0} | change))


def test_a_nudge_without_a_minimum_is_refused(net, x):
    target = torch.zeros(5, 3, dtype=DOUBLE)
    with pytest.raises(ValueError, match="must stay below the least total conductance"):
        net.relax(x, 4, target, -50.0)
    with pytest.raises(ValueError, match="a free phase neither"):
        net.relax(x, 4, None, 0.5)
