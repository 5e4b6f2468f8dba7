"""The EP gradient against backpropagation and finite differences; training as promised."""

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

import epkit
from epkit import data
from epkit.ep import probe
from epkit.ep.learning import NUDGES, gradient, phases
from epkit.ep.probe import PROBE_IMAGES, relative_rates
from epkit.ep.readout import GaussianReadout
from epkit.ep.training import State
from epkit.reference.solutions import backpropagated

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train=400, test=100)


@pytest.fixture(scope="module")
def problem(digits):
    net = epkit.DeepResistiveNetwork((64, 12, 10, 10), input_gain=20.0, members=2, seed=(3, 4), dtype=DOUBLE)
    net.weights = [w + 0.02 for w in net.weights]
    return net, digits.x_train[:6].double(), one_hot(digits.y_train[:6], 10).double()


@pytest.mark.parametrize("estimator", NUDGES)
def test_the_estimate_is_the_gradient_of_backpropagation_as_beta_vanishes(problem, estimator):
    net, x, target = problem
    exact = backpropagated(net, x, target, iterations=300)

    def error(beta):
        found = epkit.gradient(net, x, target, beta=beta, iterations=300, estimator=estimator)
        # the members' costs are summed, so each member's gradient is its own
        return max(float((g - e).norm() / e.norm()) for g, e in zip(found.weights, exact, strict=True))

    order = 2 if estimator == "centered" else 1
    assert error(1e-3) < (1e-3 if order == 2 else 5e-2)
    assert np.log2(error(4e-3) / error(2e-3)) == pytest.approx(order, abs=0.1)


def test_the_bias_estimate_is_the_finite_difference_of_the_cost(problem):
    net, x, target = problem
    found = epkit.gradient(net, x, target, beta=1e-3, iterations=300)

    def cost():
        return 0.5 * (net.relax(x, 300)[-1] - target).square().sum(-1).mean(1)

    for layer, unit in ((0, 2), (1, 5), (2, 7)):
        bias = net.biases[layer][:, unit]
        before = bias.clone()
        bias += 1e-5
        above = cost()
        bias -= 2e-5
        below = cost()
        bias.copy_(before)
        slope = (above - below) / 2e-5
        torch.testing.assert_close(found.biases[layer][:, unit], slope, atol=1e-7, rtol=1e-3)


def test_the_estimate_is_the_plain_formula(problem):
    """Low-rank sums and differences against the textbook: (v_i - v_j)^2 broadcast, phase by phase."""
    net, x, target = problem
    beta = 0.05
    free = net.relax(x, 5)
    phases = [net.relax(x, 5, target, sign * beta, free) for sign in (1, -1)]
    amplified = net.input_gain * torch.cat([x, -x], -1).expand(2, -1, -1)
    plus, minus = ([amplified, *phase] for phase in phases)
    found = epkit.gradient(net, x, target, beta=beta, iterations=5)
    for layer, g in enumerate(found.weights):
        drops = [(s[layer][..., :, None] - s[layer + 1][..., None, :]) for s in (plus, minus)]
        expected = (drops[0] ** 2 - drops[1] ** 2).mean(1) / (4 * beta)
        torch.testing.assert_close(g, expected, atol=1e-12, rtol=1e-9)


def test_read_out_noise_leaves_the_estimate_unbiased_with_the_derived_spread(problem):
    """std(g) = sigma/beta sqrt(D^2 + sigma^2) for one drop D between two read nodes (REFERENCES: our derivation)."""
    net, x, target = problem
    beta, sigma, repeats = 0.2, 0.05, 300
    one, goal = x[:1], target[:1]
    exact = epkit.gradient(net, one, goal, beta=beta, iterations=10)
    free = net.relax(one, 10)
    plus, minus = (net.relax(one, 10, goal, sign * beta, free) for sign in (1, -1))
    generator = torch.Generator().manual_seed(1)
    readout = GaussianReadout(sigma)
    drawn = torch.stack(
        [
            epkit.gradient(net, one, goal, beta=beta, iterations=10, readout=readout, generator=generator).weights[1][0]
            for _ in range(repeats)
        ]
    )
    drops = [s[0][0, 0, :, None] - s[1][0, 0, None, :] for s in (plus, minus)]
    spread = sigma / beta * ((drops[0] ** 2 + drops[1] ** 2) / 2 + sigma**2).sqrt()
    standard_error = drawn.std(0) / repeats**0.5
    assert float(((drawn.mean(0) - exact.weights[1][0]) / standard_error).abs().max()) < 5
    assert float((drawn.std(0) / spread).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta = 0.0: must be a finite number > 0"),
        ({"estimator": "symmetric"}, "allowed are 'centered', 'positive'"),
    ],
)
def test_wrong_arguments_of_the_gradient_are_refused(problem, change, message):
    net, x, target = problem
    arguments = {"beta": 0.1, "iterations": 2} | change
    with pytest.raises((ValueError, TypeError), match=message if "beta" in change else None):
        epkit.gradient(net, x, target, **arguments)


def trained(digits, engine="eager", members=1, seed=0, sigma=1e-4, epochs=2, net=None, beta=0.1, **more):
    net = net or epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=100.0, members=members, seed=seed)
    history = epkit.train(
        net, digits.x_train, digits.y_train, epochs=epochs, batch_size=8, beta=beta, iterations=4,
        learning_rates=(0.02, 0.1, 0.05), readout=GaussianReadout(sigma), seed=seed,
        test=(digits.x_test, digits.y_test), engine=engine, **more,
    )  # fmt: skip
    return net, history


def test_training_learns_and_keeps_conductances_positive(digits):
    sizes, common = (64, 32, 10), {"beta": 0.5, "iterations": 4, "batch_size": 8}
    rates = relative_rates(sizes, digits.x_train, digits.y_train, input_gain=20.0, **common)
    net = epkit.DeepResistiveNetwork(sizes, input_gain=20.0)
    history = epkit.train(
        net, digits.x_train, digits.y_train, epochs=8, learning_rates=(0.05 * rates).tolist(), **common,
        test=(digits.x_test, digits.y_test),
    )  # fmt: skip
    assert float(history.test_error[-1, 0]) < 0.3
    assert all((w >= 0).all() for w in net.weights)
    assert not history.diverged.any()
    assert history.activity.dims == ("epoch", "member", "layer")
    assert history.activity[..., -1].isnull().all()


def test_a_run_continued_is_the_run_undisturbed(digits):
    whole, history = trained(digits, epochs=3)
    half, _ = trained(digits, epochs=1, state=(state := State()))
    half, continued = trained(digits, epochs=3, net=half, state=state)
    xr.testing.assert_identical(continued, history)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, half.weights, strict=True))


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_run_stopped_within_an_epoch_goes_on_as_if_undisturbed(digits, after, monkeypatch):
    whole, history = trained(digits, looks=3)
    blocks, state = itertools.count(1), State()

    def stop(_images):
        if next(blocks) == after:
            raise Stop

    net = epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=100.0)
    with pytest.raises(Stop):
        trained(digits, net=net, looks=3, state=state, progress=stop)
    _, continued = trained(digits, net=net, looks=3, state=state)
    xr.testing.assert_identical(continued, history)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, net.weights, strict=True))


def test_looking_closer_changes_nothing_and_sees_what_a_probe_would(digits):
    plain, history = trained(digits, members=2, sigma=torch.tensor([0.0, 1e-3]))
    looked, closer = trained(digits, members=2, sigma=torch.tensor([0.0, 1e-3]), looks=5)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, looked.weights, strict=True))
    assert closer.epoch.values.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    xr.testing.assert_equal(closer.test_error.sel(epoch=[1, 2]), history.test_error)
    # five records of equal numbers of images: their mean is the epoch's
    fifths = closer.train_error.values.reshape(2, 5, 2).mean(1)
    assert fifths == pytest.approx(history.train_error.values, abs=1e-6)

    x, target = digits.x_train[:PROBE_IMAGES], one_hot(digits.y_train[:PROBE_IMAGES], 10).float()
    free = looked.relax(x, 4)
    upper, lower = (looked.relax(x, 4, target=target, beta=s * 0.1, start=free) for s in (1, -1))
    rms = torch.stack([(a - b).square().mean((1, 2)).sqrt() for a, b in zip(upper, lower, strict=True)], 1)
    assert closer.response[-1].values == pytest.approx(rms.numpy(), rel=1e-5)
    share = torch.stack([(w == 0).float().mean((1, 2)) for w in looked.weights], 1)
    assert closer.clamped[-1].values == pytest.approx(share.numpy(), abs=1e-6)
    assert not np.isfinite(closer.signal_to_noise.sel(member=0)).any()
    with pytest.raises(ValueError, match="looks = 0: must be an integer from 1 to 50"):
        trained(digits, looks=0)


def test_the_noise_in_an_estimate_has_the_size_that_theory_gives(digits):
    """One conductance between nodes read with N(0, s^2): the noise of the estimate is (s / beta) sqrt(D^2 + s^2)."""
    sigma = 1e-2
    net, history = trained(digits, sigma=sigma, epochs=1, looks=1, beta=0.3)
    x, target = digits.x_train[:PROBE_IMAGES], one_hot(digits.y_train[:PROBE_IMAGES], 10).float()
    states = phases(net, x, target, beta=0.3, iterations=4, estimator="centered")
    drop = states[1][:, :, :, :, None] - states[2][:, :, :, None, :]
    power = (sigma / 0.3) ** 2 * (drop.square().mean(1) + sigma**2).mean() / 8  # batches of 8
    batches = [gradient(net, a, b, beta=0.3, iterations=4) for a, b in zip(x.split(8), target.split(8), strict=True)]
    signal = torch.stack([g.weights[2].square().mean() for g in batches]).mean()
    found = float(history.signal_to_noise[0, 0, 2])
    assert found == pytest.approx(float((signal / power).sqrt()), rel=0.12)  # it stands on the noise of 32 images


@settings(max_examples=5, deadline=None)
@given(seeds=st.lists(st.integers(0, 9), min_size=2, max_size=4))
def test_a_member_trains_as_if_alone(digits, seeds):
    sigma = torch.linspace(0, 1e-3, len(seeds))
    together, history = trained(digits, members=len(seeds), seed=seeds, sigma=sigma, epochs=1)
    for member, seed in enumerate(seeds):
        alone, one = trained(digits, seed=seed, sigma=float(sigma[member]), epochs=1)
        for a, b in zip(alone.weights, together.weights, strict=True):
            torch.testing.assert_close(a[0], b[member], atol=1e-4, rtol=1e-3)
        assert abs(float(one.test_error[0, 0]) - float(history.test_error[0, member])) <= 0.03


def test_members_of_one_seed_share_their_random_numbers(digits):
    """Equal seeds and equal sigma: equal to the last bit, wherever they stand."""
    net, _ = trained(digits, members=3, seed=(4, 1, 4), sigma=torch.tensor([1e-3, 1e-3, 1e-3]), epochs=1)
    assert all(torch.equal(w[0], w[2]) and not torch.equal(w[0], w[1]) for w in net.weights)


def test_relative_rates_give_steps_of_the_size_of_the_weights(digits):
    sizes = (64, 16, 12, 10)
    settings_ = {"input_gain": 100.0, "beta": 0.1, "iterations": 4, "batch_size": 8}
    rates = relative_rates(sizes, digits.x_train, digits.y_train, **settings_, references=2)
    net = epkit.DeepResistiveNetwork(sizes, input_gain=100.0, members=2, seed=(0, 1))
    steps = []
    for images, classes in zip(digits.x_train.split(8)[:32], digits.y_train.split(8)[:32], strict=True):
        found = epkit.gradient(net, images, one_hot(classes, 10).float(), beta=0.1, iterations=4)
        steps.append([g.square().mean((1, 2)) for g in found.weights])
    for layer, w in enumerate(net.weights):
        rms = torch.stack([s[layer] for s in steps]).mean(0).sqrt()
        assert float(rates[layer] * rms.log().mean().exp() / w.mean()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": (0.1,)}, "must be 3 rates, one for each layer"),
        ({"batch_size": 0}, "allowed|from 1 to"),
        ({"batch_size": 500}, "must be an integer from 1 to 400"),
    ],
)
def test_wrong_training_arguments_are_refused(digits, change, message):
    net = epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=100.0)
    arguments = {
        "epochs": 1, "batch_size": 8, "beta": 0.3, "iterations": 4, "learning_rates": (0.1, 0.1, 0.1),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        epkit.train(net, digits.x_train, digits.y_train, **arguments)


def test_a_look_takes_a_part_of_wide_layers_and_leaves_out_who_cannot_be_nudged(monkeypatch):
    x, y = torch.rand(32, 20, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
    target = one_hot(y, 4).float()

    def look(limit, members=2):
        monkeypatch.setattr(probe, "PROBE_UNITS", limit)
        net = epkit.DeepResistiveNetwork((20, 64, 64, 4), input_gain=30.0, members=members, seed=0)
        net.weights[-1][members - 1] *= 0.01 if members == 3 else 1
        return probe.layers(net, x, target, 8, 0.1, 4, "centered", GaussianReadout(torch.full((members,), 1e-3)))

    whole, part = look(128), look(16)
    torch.testing.assert_close(part["response"], whole["response"])
    torch.testing.assert_close(part["signal_to_noise"], whole["signal_to_noise"], rtol=0.3, atol=0)
    third = look(128, members=3)
    for name in ("response", "signal_to_noise"):
        torch.testing.assert_close(third[name][:2], whole[name])
        assert third[name][2].isnan().all()
    assert third["clamped"].isfinite().all()
