"""Conductances that are devices: what an update makes of the steps asked for, and that such a network trains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import epkit
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
    ],
)
def test_devices_that_are_none_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        epkit.DeviceNetwork(SIZES, input_gain=5.0, **devices)


@pytest.mark.filterwarnings("ignore:the C.. engine knows no DeviceNetwork")
def test_a_network_of_devices_trains_and_resumes_as_if_undisturbed():
    digits = epkit.data.load("digits", train=300, test=200)
    devices = {
        "states": 400,
        "largest": 0.4,
        "rounding": "stochastic",
        "asymmetry": 0.01,
        "between": 0.3,
        "within": 0.3,
        "stuck": 0.01,
    }
    rule = {"batch_size": 8, "beta": 0.5, "iterations": 4, "learning_rates": (0.02, 0.025)}

    def trained(*parts):
        net, state = epkit.DeviceNetwork((64, 32, 10), input_gain=20.0, **devices), epkit.State()
        for epochs in parts:
            history = epkit.train(
                net, digits.x_train, digits.y_train, epochs=epochs, state=state, **rule,
                test=(digits.x_test, digits.y_test),
            )  # fmt: skip
        return net.weights, history

    whole, history = trained(3)
    assert float(history.test_error[-1, 0]) < 0.5
    assert all(map(torch.equal, whole, trained(1, 3)[0]))
