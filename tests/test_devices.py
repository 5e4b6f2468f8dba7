"""Conductances that are devices: what an update makes of the steps asked for, and that such a network trains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
from epkit.ep.devices import PCM
from epkit.ep.networks import Gradient

SIZES = (6, 8, 4)


def stepped(step, rate=1.0, **devices):
    """A network before and after each conductance was asked to change by `step` (S), of any shape that fits."""
    net = epkit.DeviceNetwork(SIZES, input_gain=5.0, members=2, dtype=torch.float64, **devices)
    before = [w.clone() for w in net.weights]
    asked = [-torch.as_tensor(step, dtype=torch.float64).expand_as(w) / rate for w in net.weights]
    rates = torch.full((2, 2), rate, dtype=torch.float64)
    net.update(Gradient(asked, [torch.zeros_like(b) for b in net.biases]), rates, rates)
    return net, before


def test_without_devices_it_is_the_resistive_network():
    for step in (0.013, -0.013):
        net, before = stepped(step, rate=0.5)
        for w, old in zip(net.weights, before, strict=True):
            torch.testing.assert_close(w, (old + step).clamp_min(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 1200), st.floats(-0.3, 0.3), st.sampled_from(["nearest", "stochastic"]))
def test_conductances_are_states_between_zero_and_the_largest(states, step, rounding):
    net, before = stepped(step, states=states, largest=0.4, rounding=rounding)
    spacing = 0.4 / (states - 1)
    for w, old in zip(net.weights, before, strict=True):
        for each in (w, old):
            torch.testing.assert_close(each / spacing, (each / spacing).round(), rtol=0, atol=1e-9)
            assert 0 <= each.min() <= each.max() <= 0.4 + 1e-12
        free = (old + step > spacing) & (old + step < 0.4 - spacing)
        most = 0.5 if rounding == "nearest" else 1.0
        assert bool(((w - old - step)[free].abs() <= most * spacing * (1 + 1e-9)).all())


def test_steps_below_half_a_state_are_lost_or_taken_now_and_then():
    step = torch.rand(2, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2e-4 + 1e-4
    net = epkit.DeviceNetwork((6, 8), input_gain=5.0, members=2, dtype=torch.float64, states=101, largest=0.1)
    before = net.weights[0].clone()
    rates, biases = torch.ones(1, 2, dtype=torch.float64), [torch.zeros_like(net.biases[0])]
    net.update(Gradient([-step], biases), rates, rates)
    assert torch.equal(net.weights[0], before)
    net.rounding, net.largest = "stochastic", None
    for k in range(200):
        net.update(Gradient([-step * (1 + 1e-3 * k)], biases), rates, rates)
    asked = step * sum(1 + 1e-3 * k for k in range(200))
    assert float((net.weights[0] - before).mean() / asked.mean()) == pytest.approx(1, abs=0.02)
    assert 0.9e-3 < float((net.weights[0] - before - asked).std()) < 1.1e-3 * 200**0.5


def test_steps_up_and_down_are_uneven():
    for sign, size in ((1, 0.0101), (-1, 0.0099)):
        net, before = stepped(sign * 0.01, asymmetry=0.01)
        for w, old in zip(net.weights, before, strict=True):
            torch.testing.assert_close(w, (old + sign * size).clamp_min(0))


def test_steps_vary_from_device_to_device_and_from_one_to_the_next():
    step = 1e-2 * (1 + torch.rand(2, 1, 8, generator=torch.Generator().manual_seed(1)))
    rates, biases = torch.ones(1, 2), [torch.zeros(2, 8)]

    def moves(**devices):
        net = epkit.DeviceNetwork((300, 8), input_gain=5.0, members=2, **devices)
        net.weights[0] += 1
        found = []
        for k in (1.0, 1.01):
            before = net.weights[0].clone()
            net.update(Gradient([-k * step * torch.linspace(1, 1.1, 600)[:, None]], biases), rates, rates)
            found.append((net.weights[0] - before) / (k * step * torch.linspace(1, 1.1, 600)[:, None]))
        return found

    for one in moves(between=0.3):
        assert torch.allclose(one[0], one[1], atol=1e-3)
        assert float(one.std()) == pytest.approx(0.3, rel=0.05)
    first, second = moves(within=0.3)
    assert float(first.mean()) == pytest.approx(1, abs=0.02)
    assert float(first.std()) == pytest.approx(0.3, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05


def test_stuck_conductances_keep_their_value_in_all_members():
    net, before = stepped(0.05, stuck=0.25)
    held = [w == old for w, old in zip(net.weights, before, strict=True)]
    assert all(torch.equal(h[0], h[1]) for h in held)
    share = sum(int(h.sum()) for h in held) / sum(h.numel() for h in held)
    assert share == pytest.approx(0.25, abs=0.1)
    everything, first = stepped(0.05, stuck=1.0)
    assert all(map(torch.equal, everything.weights, first))


def test_a_write_leaves_an_error_that_depends_on_the_conductance_written():
    """1.1, 3.8 and 4.2 % of the largest at 0, half and all of it, as published of phase-change memory."""
    asked = 1e-3 * (1 + torch.rand(2, 600, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    for at, share in ((0.0, 0.011), (0.5, 0.038), (1.0, 0.042)):
        for write, expected in ((PCM, share), (0.02, 0.02)):
            net = epkit.DeviceNetwork(
                (300, 100), input_gain=1.0, members=2, dtype=torch.float64, largest=2.0, write=write
            )
            net.weights[0][:] = 2 * at
            asked[:, :, 0] = 0
            net.update(Gradient([-asked], [0 * net.biases[0]]), torch.ones(1, 2), torch.ones(1, 2))
            error = (net.weights[0] - 2 * at)[:, :, 1:] - (asked[:, :, 1:] if at < 1 else 0)
            inside = error[error > 0] if at == 0 else error[error < 0]  # beyond 0 and the largest there is nothing
            assert float(inside.square().mean().sqrt()) == pytest.approx(2 * expected, rel=0.05)
            assert bool((net.weights[0][:, :, 0] == 2 * at).all())  # not written


def test_write_errors_and_uneven_steps_are_independent_of_one_another():
    def moved(**devices):
        net = epkit.DeviceNetwork((300, 100), input_gain=1.0, dtype=torch.float64, largest=10.0, **devices)
        net.weights[0][:] = 5
        asked = 0.1 * (1 + torch.rand(1, 600, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        net.update(Gradient([-asked], [0 * net.biases[0]]), torch.ones(1, 1), torch.ones(1, 1))
        return ((net.weights[0] - 5) / asked - 1).flatten()

    step, written = moved(within=0.3), moved(write=0.001)
    assert float(step.std()) == pytest.approx(0.3, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([step, written]))[0, 1])) < 0.02


@pytest.mark.parametrize("held_at", [0.0, 0.7, None])
def test_a_unit_with_a_broken_diode_is_held_or_linear_and_the_rest_settles_around_it(held_at):
    sizes = (6, 40, 30, 4)
    net = epkit.DeviceNetwork(sizes, input_gain=5.0, dtype=torch.float64, stuck_units=0.3, held_at=held_at)
    net.weights = [w + 0.01 for w in net.weights]
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    states = net.relax(x, 500)
    assert 0.1 < float(torch.cat(net.broken).double().mean()) < 0.5
    # what flows into each unit from outside of it is 0 where it is free to move: Kirchhoff's law, by autograd
    free = [v.clone().requires_grad_() for v in states]
    residual = torch.autograd.grad(net.energy(x, free).sum(), free)
    for v, current, broken in zip(states, residual, net.broken, strict=False):
        half = torch.arange(v.shape[-1]) < v.shape[-1] // 2
        if held_at is None:
            assert float(current[..., broken].abs().max()) < 1e-9
            assert bool((v[..., broken & half] < 0).any())
        else:
            assert bool((v[..., broken] == held_at).all())
        assert float(current[(v != 0) & ~broken].abs().max()) < 1e-9
        assert bool((v[..., ~broken & half] >= 0).all())
        assert bool((v[..., ~broken & ~half] <= 0).all())


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_johnson_noise_has_the_covariance_of_the_circuit(beta):
    """power A^-1 L A^-1 of the units that conduct; L by hand, A with the nudge, which makes no noise."""
    sizes, batch, power = (3, 6, 4, 2), 20_000, 1e-8
    net = epkit.ThermalNetwork(sizes, input_gain=5.0, dtype=torch.float64, power=power, seed=2)
    net.weights = [0.1 * (w + 0.1) for w in net.weights[:1]] + [w + 0.1 for w in net.weights[1:]]
    x = torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64).expand(batch, 3)
    target = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(batch, 2)
    exact = epkit.DeepResistiveNetwork(sizes, input_gain=5.0, dtype=torch.float64)
    exact.weights = net.weights
    start = exact.relax(x[:1], 1000)
    assert all(map(torch.equal, net.relax(x[:1], 1000), start))  # predictions are exact
    start = [v.expand(1, batch, -1) for v in start]
    nudge = {"target": target, "beta": beta} if beta else {}
    quiet = exact.relax(x[:1], 1000, target[:1], beta) if beta else exact.relax(x[:1], 1000)
    v = torch.cat(net.relax(x, 300, start=start, **nudge), -1)[0]
    laplacian, first = torch.zeros(12, 12, dtype=torch.float64), [0, 6, 10]
    for layer, w in enumerate(w[0] for w in net.weights):
        post = slice(first[layer], first[layer] + w.shape[1])
        laplacian[post, post] += torch.diag(w.sum(0))
        if layer:
            pre = slice(first[layer - 1], first[layer])
            laplacian[pre, pre] += torch.diag(w.sum(1))
            laplacian[pre, post], laplacian[post, pre] = -w, -w.T
    conducts = torch.cat(quiet, -1)[0, 0] != 0
    laplacian = laplacian[conducts][:, conducts]
    nudged = laplacian + beta * torch.diag((torch.arange(12) >= 10).double()[conducts])
    expected = power * torch.linalg.inv(nudged) @ laplacian @ torch.linalg.inv(nudged)
    assert 4 < int(conducts.sum()) < 12
    assert not v[:, ~conducts].any()
    found = torch.cov(v[:, conducts].T)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03 * float(expected.max()))
    assert float(torch.triu(expected, 1).max() / expected.max()) > 0.2  # units share it


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"largest": 0.0}, "largest = 0.0: must be a finite number > 0"),
        ({"states": 1, "largest": 1.0}, "states = 1: must be an integer >= 2"),
        ({"states": 8}, "states = 8: they are those up to `largest`, give it"),
        ({"rounding": "up"}, "rounding = 'up': allowed are"),
        ({"asymmetry": 2.0}, "asymmetry = 2.0: must be at most 1"),
        ({"between": -1.0}, "between = -1.0"),
        ({"within": float("inf")}, "within = inf"),
        ({"stuck": -0.1}, "stuck = -0.1"),
        ({"stuck": 1.5}, "stuck = 1.5: must be at most 1"),
        ({"device_seed": -1}, "device_seed = -1"),
        ({"write": 0.1}, "write = 0.1: it is a share of `largest`, give it, and no `states`"),
        ({"write": 0.1, "largest": 1.0, "states": 8}, "write = 0.1: it is a share"),
    ],
)
def test_devices_that_are_none_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        epkit.DeviceNetwork(SIZES, input_gain=5.0, **devices)


@pytest.mark.filterwarnings("ignore:the C.. engine knows no")
def test_a_network_of_devices_trains_and_resumes_as_if_undisturbed():
    digits = epkit.data.load("digits", train=300, test=200)
    devices = {
        "largest": 0.4,
        "asymmetry": 0.01,
        "between": 0.3,
        "within": 0.3,
        "stuck": 0.01,
        "stuck_units": 0.05,
    }
    rule = {"batch_size": 8, "beta": 0.5, "iterations": 4, "learning_rates": (0.02, 0.025)}

    def trained(make, own, *parts):
        net, state = make((64, 32, 10), input_gain=20.0, **devices, **own), epkit.State()
        for epochs in parts:
            history = epkit.train(
                net, digits.x_train, digits.y_train, epochs=epochs, state=state, **rule,
                test=(digits.x_test, digits.y_test),
            )  # fmt: skip
        return net.weights, history

    for make, own in (
        (epkit.DeviceNetwork, {"states": 400, "rounding": "stochastic"}),
        (epkit.ThermalNetwork, {"write": 1e-4, "power": 1e-6}),
    ):
        whole, history = trained(make, own, 3)
        assert float(history.test_error[-1, 0]) < 0.5
        assert all(map(torch.equal, whole, trained(make, own, 1, 3)[0]))
