"""Read-outs and networks written outside epkit: what they must give, and that everything else comes with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

import epkit
from epkit import data
from epkit.ep import engine
from epkit.ep.learning import phases
from epkit.ep.networks import Network
from epkit.files import CHECKOUT
from epkit.sweep import store

SWEEP = {
    "dataset": ["digits"], "sigma": [0.0, 0.05], "learning_rate": [0.05], "seeds": 1, "hidden": [16, 16],
    "input_gain": 60.0, "beta": 0.1, "iterations": 4, "epochs": 2, "train_images": 200, "test_images": 100,
}  # fmt: skip


@dataclass(frozen=True)
class RelativeReadout:
    """v (1 + share xi), xi ~ N(0, 1): noise in proportion to what is read."""

    share: torch.Tensor | float
    samples: int = 1
    averaging: str = "shortcut"

    def noise(self, shape, generator):
        return torch.randn(shape, generator=generator) / self.samples**0.5

    def read(self, states, noise):
        share = torch.as_tensor(self.share, dtype=states[0].dtype).reshape(-1, 1, 1, 1)
        return [v * (1 + share * xi) for v, xi in zip(states, noise, strict=True)]


class HopfieldNetwork(Network):
    """Layered continuous Hopfield network with units held within [0, 1] (arXiv:1602.05179, hard sigmoid).

    E = sum 1/2 |s|^2 - sum_l s_l W_l s_{l+1} - sum b.s, with s_0 = x; a step of relaxation goes to the minimum for a
    layer, given its neighbours.
    """

    def __init__(self, sizes, *, input_gain=1.0, members=1, seed=0, dtype=torch.float32, device="cpu"):
        self.sizes, self.gain = tuple(sizes), input_gain
        seeds = [seed] * members if isinstance(seed, int) else seed
        self.weights, self.biases = [], []
        for layer, (pre, post) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            drawn = [torch.randn(pre, post, generator=torch.Generator().manual_seed(100 * s + layer)) for s in seeds]
            self.weights.append((torch.stack(drawn) / pre**0.5).to(device, dtype))
            self.biases.append(torch.zeros(members, post, dtype=dtype, device=device))

    def relax(self, x, iterations, target=None, beta=0.0, start=None):
        x = self.gain * (x if x.ndim == 3 else x[None])
        states = [x, *(start or [x.new_zeros(self.members, x.shape[1], n) for n in self.sizes[1:]])]
        for _ in range(iterations):
            for layer in range(1, len(states)):
                pull = states[layer - 1] @ self.weights[layer - 1] + self.biases[layer - 1][:, None]
                if layer + 1 < len(states):
                    pull = pull + states[layer + 1] @ self.weights[layer].mT
                elif target is not None:
                    pull = (pull + beta * target) / (1 + beta)
                states[layer] = pull.clamp(0, 1)
        return states[1:]

    def energy(self, x, states):
        states = [self.gain * (x if x.ndim == 3 else x[None]), *states]
        squares = sum(0.5 * s.square().sum(-1) for s in states[1:])
        pairs = zip(self.weights, states[:-1], states[1:], strict=True)
        coupling = sum(((pre @ w) * post).sum(-1) for w, pre, post in pairs)
        work = sum((s @ b[..., None])[..., 0] for s, b in zip(states[1:], self.biases, strict=True))
        return squares - coupling - work


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train=1000, test=300)


def train(net, digits, readout=None, epochs=2, **options):
    rates = [0.05] * len(net.weights)
    return epkit.train(
        net, digits.x_train, digits.y_train, epochs=epochs, batch_size=10, beta=0.5, iterations=12,
        learning_rates=rates, readout=readout, test=(digits.x_test, digits.y_test), **options,
    )  # fmt: skip


def test_a_read_out_of_ones_own_goes_through_gradient(digits):
    net = epkit.DeepResistiveNetwork((64, 16, 10), input_gain=60.0)
    x, target = digits.x_train[:8], one_hot(digits.y_train[:8], 10).float()
    exact, none, noisy = (
        epkit.gradient(net, x, target, beta=0.1, iterations=5, readout=readout)
        for readout in (None, RelativeReadout(0.0), RelativeReadout(0.1))
    )
    for a, b, c in zip(exact.weights, none.weights, noisy.weights, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)


def test_the_read_out_of_the_design_s_page_goes_through_gradient(digits):
    page, names = (CHECKOUT / "docs" / "design.md").read_text(encoding="utf-8"), {"torch": torch}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    net = epkit.DeepResistiveNetwork((64, 16, 10), input_gain=60.0, members=2)
    batch = digits.x_train[:8], one_hot(digits.y_train[:8], 10).float()
    readout = names["RelativeReadout"](torch.tensor([0.0, 0.1]))
    exact, noisy = (epkit.gradient(net, *batch, beta=0.1, iterations=5, readout=r).weights[0] for r in (None, readout))
    assert torch.equal(noisy[0], exact[0])
    assert not torch.allclose(noisy[1], exact[1])


def test_a_read_out_of_ones_own_trains_with_one_message_that_it_is_eager(digits):
    settings_ = {"epochs": 1, "batch_size": 8, "beta": 0.1, "iterations": 4, "learning_rates": (0.01, 0.01)}
    few = digits.x_train[:80], digits.y_train[:80]

    def weights(readout, engine="auto"):
        net = epkit.DeepResistiveNetwork((64, 16, 10), input_gain=60.0)
        history = epkit.train(net, *few, **settings_, readout=readout, engine=engine)
        assert history.engine == "eager"
        return net.weights

    engine._say_once.cache_clear()
    with pytest.warns(UserWarning, match=r"can't do RelativeReadout; training uses the slower torch engine"):
        silent = weights(RelativeReadout(0.0))
    noisy = weights(RelativeReadout(0.2))  # a second message would fail this test
    assert all(map(torch.equal, silent, weights(None, "eager")))
    assert not all(map(torch.equal, silent, noisy))


@pytest.mark.filterwarnings("ignore:the C.. engine")
def test_read_outs_and_networks_of_ones_own_run_and_are_told_apart(tmp_path):
    gaussian = epkit.run(SWEEP, tmp_path / "gaussian.nc")
    relative = epkit.run(SWEEP, tmp_path / "relative.nc", readout=RelativeReadout)
    assert not set(gaussian["run"].values.flat) & set(relative["run"].values.flat)
    clean = {"sigma": 0.0}
    np.testing.assert_allclose(relative.test_error.sel(clean), gaussian.test_error.sel(clean), atol=0.05)
    assert "RelativeReadout" in relative.attrs["parameters"]
    assert epkit.run(SWEEP, tmp_path / "relative.nc", readout=RelativeReadout).identical(relative)
    hopfield = {**SWEEP, "input_gain": 1.0, "beta": 0.5, "iterations": 10, "sigma": [0.0], "rates": [0.1] * 3}
    ds = epkit.run(hopfield, tmp_path / "hopfield.nc", network=HopfieldNetwork)
    assert all("engine eager" in maker for maker in store.makers(ds))
    assert not set(gaussian["run"].values.flat) & set(ds["run"].values.flat)


@pytest.mark.filterwarnings("ignore:the C.. engine")
def test_a_hopfield_network_learns_digits(digits):
    net = HopfieldNetwork((64, 32, 10), seed=1)
    history = train(net, digits, epochs=6)
    assert float(history.test_error[-1, 0]) < 0.3  # chance: 0.9
    noisy = HopfieldNetwork((64, 32, 10), seed=1)
    train(noisy, digits, readout=epkit.GaussianReadout(1e-3), epochs=1)
    assert not torch.equal(net.weights[0], noisy.weights[0])


@settings(max_examples=20, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 6).map(lambda n: 2 * n), max_size=3),
    members=st.integers(1, 3),
    batch=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_contrast_is_the_derivative_of_the_energies(hidden, members, batch, seed):
    """The generic path by autograd is the oracle of the resistive network's own formula."""
    generator = torch.Generator().manual_seed(seed)
    net = epkit.DeepResistiveNetwork((5, *hidden, 3), input_gain=2.0, members=members, seed=seed, dtype=torch.float64)
    x = torch.rand(batch, 5, generator=generator, dtype=torch.float64)
    states = [torch.randn(members, 2, batch, n, generator=generator, dtype=torch.float64) for n in net.sizes[1:]]
    fast, generic = net.contrast(x, states, 0.3), Network.contrast(net, x, states, 0.3)
    for a, b in zip([*fast.weights, *fast.biases], [*generic.weights, *generic.biases], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13 * max(1.0, float(b.abs().max())))


def test_phases_together_are_those_one_after_the_other(digits):
    """What the resistive network computes side by side, and what any network gets from `relax`."""
    net = epkit.DeepResistiveNetwork((64, 16, 12, 10), input_gain=20.0, dtype=torch.float64)
    x, target = digits.x_train[None, :4].double(), one_hot(digits.y_train[None, :4], 10).double()
    nudges = torch.tensor([0.1, -0.1], dtype=torch.float64)
    free, together = net.relax_phases(x, target, nudges, 5)
    also_free, apart = Network.relax_phases(net, x, target, nudges, 5)
    by_rule = phases(net, x, target, beta=0.1, iterations=5, estimator="centered")
    for states, others in ((free, also_free), (together, apart), (together, by_rule)):
        for v, w in zip(states, others, strict=True):
            torch.testing.assert_close(v, w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("returned", [torch.zeros(3), "noise", torch.zeros(2, 8, 27)])
def test_noise_of_another_shape_is_refused(digits, returned):
    class Wrong(epkit.GaussianReadout):
        def noise(self, shape, generator=None):
            return returned

    net = epkit.DeepResistiveNetwork((64, 16, 10), input_gain=20.0)
    x, target = digits.x_train[:8], one_hot(digits.y_train[:8], 10).float()
    with pytest.raises(ValueError, match=r"Wrong\.noise returned .* must be a tensor of shape \(2, 8, 26\), or None"):
        epkit.gradient(net, x, target, beta=0.1, iterations=2, readout=Wrong(1e-3))
    with pytest.raises(ValueError, match=r"Wrong\.noise returned"):
        epkit.train(net, digits.x_train[:80], digits.y_train[:80], epochs=1, batch_size=8, beta=0.1, iterations=2,
                    learning_rates=(0.01, 0.01), readout=Wrong(1e-3))  # fmt: skip
