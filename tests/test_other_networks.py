"""Networks beside the deep resistive one, and rules beside the warm nudged phases, against oracles of other code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import minimize
from torch.nn.functional import conv2d, one_hot

import epkit
from epkit import ConvolutionalResistiveNetwork, DeepHopfieldNetwork, DeepResistiveNetwork, data
from epkit.ep.networks import Network
from epkit.sweep import ensemble
from epkit.sweep.parameters import Sweep
from epkit.validation import validated

DOUBLE = torch.float64
PAGE = Path(__file__).parents[1] / "docs" / "network.md"
TWO = {"members": 2, "seed": (1, 2), "dtype": DOUBLE}
pytestmark = pytest.mark.filterwarnings("ignore:the C.. engine", "ignore:the fast engines")


def hopfield(sizes=(64, 24, 16, 10), **options):
    return DeepHopfieldNetwork(sizes, **TWO | options)


def convolutional(sizes=(64, 72, 10), **options):
    net = ConvolutionalResistiveNetwork(sizes, input_gain=30.0, **TWO | options)
    net.weights = [w + 0.05 for w in net.weights]  # a minimum that is reached fast
    return net


NETWORKS = {"hopfield": (hopfield, 0.1), "convolutional": (convolutional, 0.05)}  # with a nudge that suits each
every_network = pytest.mark.parametrize(("make", "beta"), NETWORKS.values(), ids=NETWORKS)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train=600, test=200)


@pytest.fixture(scope="module")
def batch(digits):
    return digits.x_train[:6].double(), one_hot(digits.y_train[:6], 10).double()


def distance(found, reference) -> float:
    """The largest relative error of a layer's estimate."""
    pairs = zip([*found.weights, *found.biases], [*reference.weights, *reference.biases], strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def bounds(net, layer: int, units: int) -> list[tuple[float | None, float | None]]:
    if isinstance(net, DeepHopfieldNetwork):
        return [(0.0, 1.0)] * units
    if layer == len(net.sizes) - 2:
        return [(None, None)] * units
    return [(0.0, None)] * (units // 2) + [(None, 0.0)] * (units - units // 2)


@pytest.mark.parametrize("nudge", [0.0, 0.3, -0.02])
@pytest.mark.parametrize(
    "net",
    [hopfield((9, 6, 5, 3)), convolutional((16, 8, 3), kernel=3, stride=1), convolutional((36, 18, 4, 3), kernel=2)],
    ids=["hopfield", "one map layer", "two map layers"],
)
def test_relaxation_ends_at_the_minimum_that_scipy_finds(net, nudge):
    if isinstance(net, DeepHopfieldNetwork):
        net.weights = [w / (2 * torch.linalg.matrix_norm(w, 2)[:, None, None]) for w in net.weights]  # convex
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(2, n, generator=generator, dtype=DOUBLE) for n in (net.sizes[0], net.sizes[-1]))
    net.biases = [torch.randn(b.shape, generator=generator, dtype=DOUBLE) for b in net.biases]
    states = net.relax(x, 300, target if nudge else None, nudge)

    def energy(flat, member, k):
        v = torch.tensor(flat, requires_grad=True)
        layers = [s.expand(2, 1, -1) for s in v.split(net.sizes[1:])]
        cost = 0.5 * (v[-net.sizes[-1] :] - target[k]).square().sum()
        value = net.energy(x[k : k + 1], layers)[member, 0] + nudge * cost
        return value.item(), torch.autograd.grad(value, v)[0].numpy()

    limits = [limit for layer, n in enumerate(net.sizes[1:]) for limit in bounds(net, layer, n)]
    options = {"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 50}
    for member, k in ((0, 0), (1, 1)):
        found = torch.cat([v[member, k] for v in states])
        result = minimize(energy, 0 * found, (member, k), "L-BFGS-B", jac=True, bounds=limits, options=options)
        np.testing.assert_allclose(found, result.x, atol=2e-6, rtol=2e-5)


def test_the_convolutional_energy_is_that_of_its_resistors(batch):
    """Half of W (v_i - v_j)^2, summed over a kernel's places with conv2d: no matrix of the circuit."""
    net, x = convolutional(kernel=3, stride=2), batch[0]
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 6, n, generator=generator, dtype=DOUBLE) for n in net.sizes[1:]]
    images = 30 * torch.stack([x, -x], 1).reshape(6, 2, 8, 8)
    for member in range(2):
        kernels = net.weights[0][member].T.reshape(8, 2, 3, 3)
        maps = states[0][member].reshape(6, 8, 3, 3)
        drops = conv2d(images**2, kernels, stride=2) - 2 * maps * conv2d(images, kernels, stride=2)
        drops = drops + maps**2 * kernels.sum((1, 2, 3))[None, :, None, None]
        last = (states[0][member][:, :, None] - states[1][member][:, None]) ** 2 * net.weights[1][member]
        expected = 0.5 * (drops.sum((1, 2, 3)) + last.sum((1, 2)))
        torch.testing.assert_close(net.energy(x, states)[member], expected, rtol=1e-10, atol=1e-8)


def test_the_hopfield_energy_falls_with_every_sweep(batch):
    net = hopfield()
    states = [net.relax(batch[0], n) for n in range(1, 30)]
    energies = torch.stack([net.energy(batch[0], s) for s in states])
    assert bool((energies.diff(dim=0) <= 1e-12).all())


@every_network
def test_the_estimate_becomes_the_gradient_as_beta_vanishes(batch, make, beta):
    net = make()
    exact = epkit.gradient(net, *batch, beta=beta, iterations=300, estimator="backpropagation")
    errors = [distance(epkit.gradient(net, *batch, beta=b, iterations=300), exact) for b in (beta / 100, beta / 50)]
    assert errors[0] < 1e-4
    assert np.log2(errors[1] / errors[0]) == pytest.approx(2, abs=0.2)


@every_network
def test_backpropagation_is_the_finite_difference_of_the_cost(batch, make, beta):
    net, (x, target) = make(), batch
    exact = epkit.gradient(net, x, target, beta=beta, iterations=40, estimator="backpropagation")
    for parameter, slope in ((net.weights[0], exact.weights[0]), (net.biases[0], exact.biases[0])):
        for place in ((0, *[3] * (parameter.ndim - 1)), (1, *[5] * (parameter.ndim - 1))):
            costs = []
            for shift in (1e-5, -2e-5):
                parameter[place] += shift
                costs.append(0.5 * (net.relax(x, 40)[-1] - target).square().sum(-1).mean(1)[place[0]])
            parameter[place] += 1e-5
            torch.testing.assert_close(slope[place], (costs[0] - costs[1]) / 2e-5, rtol=1e-4, atol=1e-8)


@every_network
def test_the_contrast_is_the_derivative_of_the_energies(batch, make, beta):
    net = make()
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 2, 6, n, generator=generator, dtype=DOUBLE) for n in net.sizes[1:]]
    own, generic = net.contrast(batch[0], states, beta), Network.contrast(net, batch[0], states, beta)
    assert distance(own, generic) < 1e-10


@pytest.mark.parametrize("estimator", ["positive", "negative"])
@pytest.mark.parametrize(
    "make", [convolutional, lambda: DeepResistiveNetwork((64, 16, 12, 10), input_gain=20.0, **TWO)]
)
def test_cold_phases_leave_no_residual_over_beta(batch, make, estimator):
    """Of few iterations, from the free state it grows as 1/beta (arXiv:2604.23806); from zero it stays what it is."""
    net = make()
    net.weights = [w + 0.02 for w in net.weights]
    exact = epkit.gradient(net, *batch, beta=1.0, iterations=300, estimator="backpropagation")

    def error(beta, cold):
        found = epkit.gradient(net, *batch, beta=beta, iterations=4, estimator=estimator, cold=cold)
        return distance(found, exact)

    assert error(1e-4, cold=False) / error(1e-3, cold=False) == pytest.approx(10, rel=0.1)
    assert error(1e-4, cold=True) == pytest.approx(error(1e-3, cold=True), rel=0.1)
    assert error(1e-4, cold=True) < 0.1 < error(1e-4, cold=False)


def trained(net, digits, rates, **options):
    settings = {"epochs": 3, "batch_size": 10, "beta": 0.1, "iterations": 6, "test": (digits.x_test, digits.y_test)}
    return epkit.train(net, digits.x_train, digits.y_train, learning_rates=rates, **settings | options)


def small(make, sizes, **own):
    return lambda **options: make(sizes, **TWO | own | options)


HOPFIELD = small(DeepHopfieldNetwork, (64, 24, 10))
LEARNING = {
    "hopfield": (HOPFIELD, (0.2, 0.2), {}),
    "hopfield, positive, cold": (HOPFIELD, (0.2, 0.2), {"estimator": "positive", "cold": True}),
    "hopfield, backpropagation": (HOPFIELD, (0.1, 0.1), {"estimator": "backpropagation", "epochs": 5}),
    "hopfield, momentum": (HOPFIELD, (0.03, 0.03), {"optimiser": "momentum", "nudged_iterations": 3}),
    "hopfield, adam": (HOPFIELD, (0.003, 0.003), {"optimiser": "adam"}),
    "convolutional": (small(ConvolutionalResistiveNetwork, (64, 72, 10), input_gain=20.0), (0.008, 0.025), {}),
    "resistive, adam": (
        small(DeepResistiveNetwork, (64, 16, 10), input_gain=20.0), (0.002, 0.002), {"optimiser": "adam"}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "rates", "options"), LEARNING.values(), ids=LEARNING)
def test_training_lowers_the_error(digits, make, rates, options):
    history = trained(make(dtype=torch.float32), digits, rates, **options)
    assert float(history.test_error[-1].max()) < 0.5, history.test_error.values  # chance: 0.9


@every_network
def test_members_are_independent_and_read_outs_work(digits, make, beta):
    few = data.Split(digits.x_train[:60], digits.y_train[:60], digits.x_test, digits.y_test)
    noise = torch.tensor([0.0, 0.01])

    def weights(readout, **options):
        net = make(**options)
        rates = [0.01] * len(net.weights)
        trained(net, few, rates, readout=epkit.GaussianReadout(readout), seed=0, optimiser="adam", epochs=1)
        return net.weights

    together = weights(noise)
    for member in range(2):
        alone = weights(noise[member], members=1, seed=member + 1)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[member], b[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(together[0][1], weights(0.0)[0][1])


def test_adam_is_that_of_torch(digits):
    x, y = digits.x_train[:40].double(), digits.y_train[:40]
    net, plain = hopfield(members=1, seed=1), hopfield(members=1, seed=1)
    settings = {"epochs": 3, "batch_size": 40, "beta": 1.0, "iterations": 10, "learning_rates": [0.01] * 3}
    rule = {"estimator": "backpropagation", "optimiser": "adam", "decay": 1.0}
    state = epkit.State()
    epkit.train(net, x, y, state=state, **settings | rule | {"epochs": 1})
    epkit.train(net, x, y, state=state, **settings | rule)  # goes on with the moments that the state keeps
    plain.weights, plain.biases = ([p.requires_grad_() for p in ps] for ps in (plain.weights, plain.biases))
    adam = torch.optim.Adam([*plain.weights, *plain.biases], lr=0.01)
    for _ in range(3):
        adam.zero_grad()
        (0.5 * (plain.relax(x, 10)[-1] - one_hot(y, 10)).square().sum() / 40).backward()
        adam.step()
    for a, b in zip(net.weights, plain.weights, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-6)


def test_noise_of_the_relaxation(batch):
    net, (x, target) = hopfield(noise=0.04), batch
    free = net.relax(x, 20)
    assert all(map(torch.equal, free, hopfield().relax(x, 20)))  # predictions are exact
    nudged = net.relax(x, 20, target, 0.1, free)
    assert all(map(torch.equal, nudged, net.relax(x, 20, target, 0.1, free)))
    assert not any(map(torch.equal, nudged, hopfield(noise=0.04, noise_seed=1).relax(x, 20, target, 0.1, free)))
    one_by_one = net.relax(x[None].expand(2, -1, -1), 20, target, 0.1, free)
    assert all(map(torch.equal, nudged, one_by_one))  # members that see the same images meet the same noise

    def spread(beta):
        nets = [hopfield(noise=1e-4, noise_seed=k) for k in range(20)]
        estimates = [epkit.gradient(n, x, target, beta=beta, iterations=20).weights[0] for n in nets]
        return float(torch.stack(estimates).std(0).norm())

    assert spread(0.1) / spread(0.4) == pytest.approx(4, rel=0.4)  # why a strong nudge survives it


def test_noisy_training_that_was_interrupted_ends_as_it_would_have(digits):
    few = data.Split(digits.x_train[:100], digits.y_train[:100], digits.x_test, digits.y_test)
    whole, interrupted, state = HOPFIELD(noise=0.1), HOPFIELD(noise=0.1), epkit.State()
    trained(whole, few, [0.1, 0.1], epochs=2)
    for epochs in (1, 2):
        trained(interrupted, few, [0.1, 0.1], epochs=epochs, state=state)
    assert all(map(torch.equal, whole.weights, interrupted.weights))


SWEEP = {
    "dataset": ["digits"], "sigma": [0.0], "learning_rate": [0.05], "seeds": 1, "hidden": [18], "input_gain": 1.0,
    "beta": 0.2, "iterations": 4, "epochs": 1, "train_images": 64, "test_images": 40,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"network": "hopfield", "relaxation_noise": 0.01, "nudged_iterations": 2, "estimator": "positive"},
        {"network": "convolutional", "input_gain": 30.0, "looks": 2},
        {"cold": True, "input_gain": 30.0, "beta": 0.1},
        {"estimator": "backpropagation", "network": "hopfield", "looks": 2},
    ],
)
def test_a_parameter_file_can_name_them(tmp_path, change):
    ds = epkit.run(SWEEP | change, tmp_path / "sweep.nc")
    assert "engine eager" in str(ds.attrs)
    assert ds.test_error.notnull().all()
    plain = ensemble.OWN
    assert ds["run"].values.item() not in epkit.sweep.grid.run_ids(validated(Sweep, SWEEP), plain).values()
    assert epkit.run(SWEEP | change, tmp_path / "sweep.nc").identical(ds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "hopfeild"}, "network = 'hopfeild'"),
        ({"network": "hopfield", "variant": "leaky"}, "variant = 'leaky'"),
        ({"relaxation_noise": 0.1}, "relaxation_noise = 0.1"),
        ({"estimator": "backpropagation", "cold": True}, "cold = True"),
        ({"estimator": "backpropagation", "sigma": [0.0, 1.0]}, "sigma = "),
        ({"estimator": "backpropagation", "sigma": [0.0], "samples": [1, 4]}, "samples = [1, 4]"),
        ({"estimator": "backpropagation", "sigma": [0.0], "readout": {"preset": "comparator"}}, "readout = "),
        ({"looks": 9, "train_images": 64, "batch_size": 8}, "looks = 9: allowed are 1 to 8"),
        ({"cold": False}, "cold = False"),
        ({"network": "convolutional", "hidden": [20]}, "hidden = [20]"),
    ],
)
def test_a_parameter_file_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(epkit.ParameterError, match=re.escape(message)):
        validated(Sweep, SWEEP | change)


def test_what_makes_no_sense_is_refused_by_its_name(batch, digits, tmp_path):
    x, target = batch
    refused = [
        (lambda: hopfield((64,)), "sizes"),
        (lambda: hopfield(noise=-1.0), "noise = -1.0"),
        (lambda: hopfield(noise_seed=1.5), "noise_seed = 1.5"),
        (lambda: hopfield(dtype=torch.float16), "dtype"),
        (lambda: hopfield(input_gain=0.0), "input_gain"),
        (lambda: hopfield().relax(x, 3, target, -1.0), "beta = -1"),
        (lambda: hopfield().relax(x, 3, target), "beta = 0.0"),
        (lambda: hopfield().relax(x[:, :5], 3), "x has the shape"),
        (lambda: convolutional((60, 72, 10)), "sizes[0] = 60"),
        (lambda: convolutional((64, 70, 10)), "sizes[1] = 70"),
        (lambda: convolutional((64, 9, 10)), "sizes[1] = 9"),
        (lambda: convolutional(kernel=9), "kernel = 9"),
        (lambda: convolutional(stride=0), "stride = 0"),
        (lambda: epkit.gradient(hopfield(), x, target, beta=0.1, iterations=2, cold=1), "cold = 1"),
        (lambda: epkit.gradient(hopfield(), x, target, beta=0.1, iterations=2, nudged_iterations=0), "nudged_iterat"),
        (lambda: trained(hopfield(), digits, [0.1] * 3, optimiser="adma"), "optimiser = 'adma'"),
        (lambda: trained(hopfield(), digits, [0.1] * 3, optimiser=3), "optimiser = 3"),
        (
            lambda: trained(
                hopfield(), digits, [0.1] * 3, estimator="backpropagation", readout=epkit.GaussianReadout(0.1)
            ),
            "readout = ",
        ),
        (
            lambda: epkit.run(SWEEP | {"network": "hopfield"}, tmp_path / "a.nc", network=DeepHopfieldNetwork),
            "network = ",
        ),
        (lambda: epkit.untrained({"a": SWEEP | {"network": "hopfield"}}, tmp_path / "a.nc"), "networks.a: network"),
    ]  # fmt: skip
    for call, message in refused:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_what_the_page_says_works(batch):
    text = PAGE.read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(code, namespace)
    net = namespace["WithoutDiodes"]((64, 8, 10), input_gain=20.0, **TWO)
    exact = epkit.gradient(net, *batch, beta=1.0, iterations=300, estimator="backpropagation")
    assert distance(epkit.gradient(net, *batch, beta=1e-3, iterations=300), exact) < 1e-3
    error = namespace["history"].test_error
    assert error.dims == ("epoch", "member")
    assert float(error[-1].max()) < 0.3
    (parameters,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert validated(Sweep, yaml.safe_load(parameters)).network == "hopfield"
