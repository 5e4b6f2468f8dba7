"""Variants of the resistive network against their definitions, autograd, finite differences and a solver."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import root
from torch.nn.functional import one_hot

import epkit
from epkit import data, study
from epkit.ep import engine, variants
from epkit.ep.networks import Gradient, Network
from epkit.ep.variants import LEAK, RAISED, VARIANTS, ExponentialNetwork, LeakyNetwork
from epkit.messages import ParameterError
from epkit.sweep import store

SIZES = (5, 8, 6, 3)
DOUBLE = torch.float64
few = settings(max_examples=8, deadline=None)


def problem(make, seed=0, members=2, batch=4):
    """A network with biases, images and targets."""
    generator = torch.Generator().manual_seed(seed)
    net = make(SIZES, input_gain=3.0, members=members, seed=tuple(range(seed, seed + members)), dtype=DOUBLE)
    net.biases = [0.3 * torch.randn(members, n, generator=generator, dtype=DOUBLE) for n in SIZES[1:]]
    net.weights = [w + 0.02 for w in net.weights]
    x = torch.rand(batch, SIZES[0], generator=generator, dtype=DOUBLE)
    return net, x, torch.eye(SIZES[-1], dtype=DOUBLE)[torch.arange(batch) % SIZES[-1]]


def test_conductances_begin_raised_by_as_much_as_noise_raised_them_at_the_published_size():
    network = study.networks_of("study", "09_escape_from_the_plateau")["1024x3-mnist"]
    factors = study.noise_factors(network, 5e-5).sel(quantity="conductance", layer=[1, 2])
    assert (factors.low <= RAISED).all()
    assert (factors.high >= RAISED).all()
    np.testing.assert_allclose(factors["mean"], RAISED, rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_raised_and_spread_differ_from_the_plain_network_as_they_say(dtype):
    sizes, options = (20, 40, 30, 10), {"input_gain": 2.0, "members": 2, "seed": (3, 4), "dtype": dtype}
    plain, raised, spread = (
        make(sizes, **options) for make in (epkit.DeepResistiveNetwork, variants.raised, variants.spread)
    )
    assert {type(raised), type(spread)} == {epkit.DeepResistiveNetwork}
    for w, larger, factor in zip(plain.weights, raised.weights, (*RAISED, 1.0), strict=True):
        assert torch.equal(larger, w * factor)
    for w, other in zip(plain.weights, spread.weights, strict=True):
        assert other.dtype == dtype
        zeros, most = w == 0, 0.5 * w.shape[1] ** -0.5
        assert torch.equal(other[~zeros], w[~zeros])
        filled = other[zeros] / most
        assert 0 <= float(filled.min()) < 0.05
        assert 0.95 < float(filled.max()) <= 1
        assert float(filled.mean()) == pytest.approx(0.5, abs=0.05)
    again = variants.spread(sizes, **options)
    assert all(map(torch.equal, again.weights, spread.weights))


@few
@given(name=st.sampled_from(sorted(VARIANTS)), seed=st.integers(0, 99), members=st.integers(1, 3))
def test_the_contrast_is_the_derivative_of_the_energies(name, seed, members):
    net, x, _ = problem(VARIANTS[name], seed, members)
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(members, 2, len(x), n, generator=generator, dtype=DOUBLE) for n in SIZES[1:]]
    fast, generic = net.contrast(x, states, 0.3), Network.contrast(net, x, states, 0.3)
    for a, b in zip([*fast.weights, *fast.biases], [*generic.weights, *generic.biases], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13 * max(1.0, float(b.abs().max())))


def currents(v, net, x, target, beta, member):
    """Into each unit of a leaky network, by Kirchhoff and Ohm: one conductance after the other, in numpy."""
    layers = np.split(v, np.cumsum(SIZES[1:-1]))
    amplified = net.input_gain * np.concatenate([x, -x])
    weights = [w[member].numpy() for w in net.weights]
    total = []
    for k, own in enumerate(layers):
        below = amplified if k == 0 else layers[k - 1]
        into = net.biases[k][member].numpy() + (weights[k] * (below[:, None] - own)).sum(0)
        meeting = weights[k].sum(0)
        if k < len(layers) - 1:
            into = into + (weights[k + 1] * (layers[k + 1] - own[:, None])).sum(1)
            meeting = meeting + weights[k + 1].sum(1)
            up = np.arange(len(own)) < len(own) // 2
            wrong = np.where(up, own < 0, own > 0)
            into = into - wrong * (1 / LEAK - 1) * meeting * own
        else:
            into = into + beta * (target - own)
        total.append(into)
    return np.concatenate(total)


@pytest.mark.parametrize("beta", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("seed", [0, 7])
def test_leaky_diodes_settle_where_no_current_is_left(beta, seed):
    net, x, t = problem(LeakyNetwork, seed)
    states = net.relax(x, 400, t if beta else None, beta)
    leaking = 0
    for member in range(2):
        for image in range(len(x)):
            found = np.concatenate([v[member, image].numpy() for v in states])
            arguments = (net, x[image].numpy(), t[image].numpy(), beta, member)
            solved = root(currents, np.zeros_like(found), arguments)
            assert solved.success
            np.testing.assert_allclose(found, solved.x, atol=1e-9)
            hidden = [v[member, image] for v in states[:-1]]
            leaking += sum(int((v[: len(v) // 2] < 0).sum() + (v[len(v) // 2 :] > 0).sum()) for v in hidden)
    assert leaking > 10


@few
@given(seed=st.integers(0, 999))
def test_a_leaky_steady_state_is_the_minimum_of_its_energy(seed):
    net, x, _ = problem(LeakyNetwork, seed)
    free, generator = net.relax(x, 400), torch.Generator().manual_seed(seed)
    least = net.energy(x, free)
    for size in (1e-3, 0.3):
        moved = [v + size * torch.randn(v.shape, generator=generator, dtype=DOUBLE) for v in free]
        assert (net.energy(x, moved) > least).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_estimate_is_the_slope_of_the_cost(name):
    """By finite differences of what the network does, its energy's own word left out."""
    net, x, t = problem(VARIANTS[name], seed=2, members=1)
    found = epkit.gradient(net, x, t, beta=1e-3, iterations=400)

    def cost():
        return float(0.5 * (net.relax(x, 400)[-1] - t).square().sum(-1).mean())

    for parameters, estimates in ((net.weights, found.weights), (net.biases, found.biases)):
        for p, g in zip(parameters, estimates, strict=True):
            place = (0, *(n // 2 for n in p.shape[1:]))
            slopes = []
            for step in (1e-5, -1e-5):
                p[place] += step
                slopes.append(cost())
                p[place] -= step
            assert float(g[place]) == pytest.approx((slopes[0] - slopes[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_diodes_that_hardly_leak_are_ideal(monkeypatch):
    monkeypatch.setattr(variants, "LEAK", 1e-9)
    (net, x, _), (plain, _, _) = problem(LeakyNetwork), problem(epkit.DeepResistiveNetwork)
    for v, ideal in zip(net.relax(x, 50), plain.relax(x, 50), strict=True):
        torch.testing.assert_close(v, ideal, rtol=0, atol=1e-6)


@few
@given(seed=st.integers(0, 99), size=st.floats(1e-3, 1e6))
def test_exponential_conductances_step_in_their_logarithm(seed, size):
    """u = log W moves by minus the rate times the gradient over the mean of W, by 1 at most: W stays above 0."""
    net, _, _ = problem(ExponentialNetwork, seed)
    generator = torch.Generator().manual_seed(seed)
    gradient = Gradient(
        *([size * torch.randn(p.shape, generator=generator, dtype=DOUBLE) for p in ps]
          for ps in (net.weights, net.biases))
    )  # fmt: skip
    rates = torch.rand(3, 2, generator=generator, dtype=DOUBLE)
    before = [[p.clone() for p in ps] for ps in (net.weights, net.biases)]
    net.update(gradient, rates, 0.5 * rates)
    for layer in range(3):
        w, g = before[0][layer].numpy(), gradient.weights[layer].numpy()
        for member in range(2):
            du = -float(rates[layer, member]) * g[member] / w[member].mean()
            expected = np.exp(np.log(w[member]) + np.clip(du, -1, 1))
            np.testing.assert_allclose(net.weights[layer][member].numpy(), expected, rtol=1e-12)
        assert (net.weights[layer] > 0).all()
        bias = before[1][layer] - 0.5 * rates[layer][:, None] * gradient.biases[layer]
        torch.testing.assert_close(net.biases[layer], bias)


def test_a_small_exponential_step_is_the_plain_one_at_the_mean_and_none_begins_at_0():
    net = ExponentialNetwork((20, 30, 10), input_gain=1.0, dtype=DOUBLE)
    plain = epkit.DeepResistiveNetwork((20, 30, 10), input_gain=1.0, dtype=DOUBLE)
    for w, other in zip(net.weights, plain.weights, strict=True):
        floor = 1e-3 / w.shape[1] ** 0.5
        assert torch.equal(w, torch.where(other > floor, other, floor))
    net.weights = [torch.full_like(w, float(w.mean())) for w in net.weights]
    plain.weights = [w.clone() for w in net.weights]
    gradient = Gradient([torch.randn_like(w) for w in net.weights], [torch.zeros_like(b) for b in net.biases])
    rates = torch.full((2, 1), 1e-8, dtype=DOUBLE)
    before = [w.clone() for w in net.weights]
    for each in (net, plain):
        each.update(gradient, rates, rates)
    for w, other, start in zip(net.weights, plain.weights, before, strict=True):
        torch.testing.assert_close(w - start, other - start, rtol=1e-4, atol=1e-14)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train=300, test=100)


@pytest.mark.parametrize("name", VARIANTS)
def test_they_learn(digits, name):
    net = VARIANTS[name]((64, 24, 10), input_gain=40.0)
    options = {"epochs": 8, "batch_size": 10, "beta": 0.2, "iterations": 4, "learning_rates": (0.01, 0.04)}
    history = epkit.train(net, digits.x_train, digits.y_train, test=(digits.x_test, digits.y_test), **options)
    assert history.engine == ("eager" if engine.library() is None else "native")
    assert float(history.test_error[-1, 0]) < 0.65  # chance: 0.9
    leaks = bool((net.relax(digits.x_test, 4)[0][..., :12] < 0).any())
    assert leaks == (name == "leaky")


SWEEP = {
    "dataset": ["digits"], "sigma": [0.0, 1e-3], "seeds": 1, "hidden": [12, 12], "input_gain": 50.0, "beta": 0.1,
    "iterations": 3, "epochs": 1, "train_images": 80, "test_images": 40, "rates": [0.1, 0.1, 0.1],
}  # fmt: skip


@pytest.mark.parametrize(("name", "by_hand"), [("exponential", ExponentialNetwork), ("spread", variants.spread)])
def test_a_sweep_trains_the_variant_that_it_names(tmp_path, name, by_hand):
    """The same as a reader's own network gives, and other runs than the plain network's."""
    ds = epkit.run(SWEEP | {"variant": name}, tmp_path / "variant.nc")
    own = epkit.run(SWEEP, tmp_path / "own.nc", network=by_hand)
    plain = epkit.run(SWEEP, tmp_path / "plain.nc")
    for column in ("train_cost", "conductance"):
        np.testing.assert_array_equal(ds[column], own[column])
        assert not np.array_equal(ds[column], plain[column])
    assert store.parameters(ds)["variant"] == name
    assert not set(ds["run"].values.flat) & set(plain["run"].values.flat)


class Own(epkit.GaussianReadout):
    """A read-out of one's own."""


@pytest.mark.parametrize(
    ("change", "parts", "message"),
    [
        ({"variant": "leaky"}, {"network": ExponentialNetwork}, "variant = 'leaky': is of epkit's own network"),
        ({"schedule": {"layers": [1]}}, {"readout": Own}, r"schedule = .*: is of epkit's own readout"),
    ],
)
def test_variants_and_schedules_are_not_of_ones_own_parts(tmp_path, change, parts, message):
    with pytest.raises(ParameterError, match=message):
        epkit.run(SWEEP | change, tmp_path / "sweep.nc", **parts)
    assert not list(tmp_path.iterdir())


def test_variants_refuse_what_the_network_refuses():
    for make in VARIANTS.values():
        with pytest.raises(ValueError, match="hidden widths must be even"):
            make((6, 7, 4), input_gain=1.0)
        with pytest.raises(ValueError, match="input_gain = 0: must be a finite number > 0"):
            make((6, 8, 4), input_gain=0)
    net, x, _ = problem(LeakyNetwork)
    with pytest.raises(ValueError, match="beta = 100: must stay below"):
        epkit.gradient(net, x, one_hot(torch.arange(4) % 3, 3).double(), beta=100.0, iterations=2)
