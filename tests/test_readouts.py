"""Each part of a read-out by its statistics, their composition, the C++ engine against torch, and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

import epkit
from epkit.ep import engine, schedule, training
from epkit.ep.elementwise import Operation
from epkit.ep.readout import by_layer, draw
from epkit.files import CHECKOUT
from epkit.readouts import (
    PRESETS,
    Chain,
    Comparator,
    Converter,
    Differential,
    Drift,
    Flicker,
    HeavyTails,
    Measured,
    Mismatch,
    Noise,
    Part,
    RelativeNoise,
    preset,
    thermal,
)
from epkit.readouts.chain import quantity
from epkit.sweep.identity import identity

compiled = pytest.mark.skipif(engine.library() is None, reason="no C++ compiler on this machine")
DOUBLE = torch.float64


def read(readout, v, repeats=4000, seed=0, layers=1):
    """Reads (repeat, phase) of a voltage, or of an upper and a lower one, by a unit of each layer."""
    upper, lower = v if isinstance(v, tuple) else (v, v)
    state = torch.tensor([upper, lower], dtype=DOUBLE)[None, :, None, None].expand(1, 2, repeats, 1)
    xi = draw(readout, (2, repeats, layers), torch.Generator().manual_seed(seed))
    states = [state] * layers
    found = readout.read(states, by_layer(None if xi is None else xi[None].double(), states))
    return found[-1][0, :, :, 0].T.numpy()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Repeated reads of 40 nodes at 0.1 V … 4 V, noise of 2 mV, and what path they lie at."""
    rng = np.random.default_rng(0)
    table = np.linspace(0.1, 4, 40) + 2e-3 * rng.standard_normal((25, 40))
    path = tmp_path_factory.mktemp("measured") / "reads.csv"
    np.savetxt(path, table, delimiter=",", header=",".join(f"node {k}" for k in range(40)), comments="")
    return path


# --- the parts


def test_noise_is_gaussian_and_thermal_noise_is_that_of_kt_over_c():
    assert stats.kstest(read(Noise(0.5), 1.0).ravel(), "norm", args=(1.0, 0.5)).pvalue > 1e-3
    assert thermal(1.66e-12).sigma == pytest.approx(50e-6, rel=2e-3)  # REFERENCES.md: 50 µV for 1.66 pF at 300 K
    assert thermal(4e-12, 75.0).sigma == pytest.approx(thermal(1e-12).sigma / 4)
    assert read(Noise(0.0), 1.0).std() == 0


def test_relative_noise_is_a_share_of_the_voltage():
    for v in (0.2, -3.0):
        found = read(RelativeNoise(0.1), v)
        assert found.mean() == pytest.approx(v, rel=0.01)
        assert found.std() == pytest.approx(0.1 * abs(v), rel=0.05)
    assert not read(RelativeNoise(0.1), 0.0).any()


def test_heavy_tails_are_students_with_the_given_rms():
    found = read(HeavyTails(0.5, freedom=5), 0.0, 20_000).ravel()
    assert found.std() == pytest.approx(0.5, rel=0.05)
    assert stats.kstest(found / 0.5 * (5 / 3) ** 0.5, stats.t(5).cdf).pvalue > 1e-3
    assert stats.kurtosis(found) > 1


def test_drift_moves_the_lower_phase_by_its_own_rate_for_each_unit_and_averaging_does_nothing():
    for samples in (1, 50):
        found = read(Chain((Drift(rate=2.0, gap=0.1),), samples), 1.0)
        assert (found[:, 0] == 1).all()
        assert found[:, 1].std() == pytest.approx(0.2, rel=0.05)
    fixed = read(Chain((Drift(2.0, 0.1),), 5, "explicit"), 1.0)
    assert fixed[:, 1].std() == pytest.approx(0.2, rel=0.05)


def test_flicker_has_the_power_between_its_corners_and_mostly_cancels_between_close_phases():
    part = Flicker(density=0.1, gap=1e-3, interval=1e-3, longest=10.0)
    found, decades = read(part, 0.0, 20_000), np.log(0.5e3 * 10)
    assert found.var(0) == pytest.approx(0.01 * decades, rel=0.05)
    # what the two phases do not share, by integrating the spectrum (1 - cos)/f numerically
    f = np.geomspace(0.1, 500, 200_001)
    apart = 2 * 0.01 * np.trapezoid((1 - np.cos(2 * np.pi * f * 1e-3)) / f, f)
    assert (found[:, 1] - found[:, 0]).var() == pytest.approx(apart, rel=0.05)
    wide = read(Flicker(0.1, 5.0, 1e-3, 10.0), 0.0, 20_000)
    assert (wide[:, 1] - wide[:, 0]).var() > 3 * apart


def test_measured_noise_is_drawn_from_the_deviations_of_each_node(measured):
    part = Measured(measured)
    assert len(part.deviations) == 1000
    found = read(part, 1.0).ravel()
    assert found.std() == pytest.approx(2e-3, rel=0.05)
    assert np.isin(np.float32(found - 1.0).round(6), part.deviations.numpy().round(6)).mean() > 0.99
    assert read(Measured(measured, factor=10.0), 0.0).std() == pytest.approx(2e-2, rel=0.05)


def test_mismatch_is_drawn_once_for_each_unit_of_each_circuit():
    states = [torch.linspace(-1, 1, 2 * 3 * 2000, dtype=DOUBLE).reshape(1, 2, 3, 2000).expand(2, -1, -1, -1)]
    part = Mismatch(offset=0.1, gain=0.02, seed=(3, 4))
    (found,), (again,) = part.read(states, None), part.read(states, None)
    assert torch.equal(found, again)
    v = states[0]
    slope = (found[:, 1, 2] - found[:, 0, 0]) / (v[:, 1, 2] - v[:, 0, 0])
    offset = (found - slope[:, None, None] * v)[:, 0, 0]
    torch.testing.assert_close(found, slope[:, None, None] * v + offset[:, None, None])  # fixed in phase and image
    assert slope.std(1).tolist() == pytest.approx([0.02] * 2, rel=0.05)
    assert offset.std(1).tolist() == pytest.approx([0.1] * 2, rel=0.05)
    assert abs(float(torch.corrcoef(offset)[0, 1])) < 0.1
    alone = Mismatch(offset=0.1, gain=0.02, seed=4).read([v[:1]], None)[0]
    assert torch.equal(alone[0], found[1])  # whoever else is in the ensemble
    assert torch.equal(Mismatch().read(states, None)[0], v)
    assert str(Mismatch()) != str(Mismatch(offset=0.0))


@given(
    v=st.floats(-30, 30), bits=st.integers(1, 20), low=st.floats(-20, 19), width=st.floats(0.1, 10)
)  # fmt: skip
def test_a_converter_is_within_half_an_lsb_of_what_lies_in_its_span_and_saturates_beyond(v, bits, low, width):
    lsb = width / 2**bits
    (found, _), *_ = read(Converter(bits=bits, span=(low, low + width)), v, repeats=1)
    top = low + width - lsb
    assert low - 1e-9 <= found <= top + 1e-9
    assert abs(found - min(max(v, low), top)) <= lsb / 2 + 1e-9
    assert abs((found - low) / lsb - round((found - low) / lsb)) < 1e-6


def test_a_converter_has_bits_or_an_lsb_and_one_span_or_one_a_layer():
    assert read(Converter(bits=3, span=(-1, 1)), 0.0)[0, 0] == 0  # a diode's 0 V
    assert len(np.unique(read(Noise(1.0) | Converter(bits=3, span=(-1, 1)), 0.0))) == 8
    assert read(Converter(lsb=0.3), 17.2)[0, 0] == pytest.approx(17.1)
    assert read(Converter(lsb=0.25, bits=4), 5.0)[0, 0] == 1.75
    assert read(Converter(lsb=0.25, span=(0, 1)), 5.0)[0, 0] == 0.75
    of_two = Converter(bits=4, span=[(0, 1), (0, 16)])
    assert read(of_two, 3.2, layers=2)[0, 0] == 3
    # uniform error: LSB/sqrt(12)
    assert (read(Noise(1.0) | Converter(lsb=0.01), 0.0) - read(Noise(1.0), 0.0)).std() == pytest.approx(
        0.01 / 12**0.5, rel=0.05
    )


def test_float32_does_not_coarsen_what_a_converter_tells_apart():
    """2e-5 V on 17 V, ten times the resolution of float32 there, cross a code or they don't."""
    codes = torch.linspace(17, 17.0002, 101)[None, None, None].expand(1, 2, 1, 101)
    fine = Converter(bits=20, span=(-20, 20)).read([codes], None)[0]
    exact = Converter(bits=20, span=(-20, 20)).read([codes.double()], None)[0]
    torch.testing.assert_close(fine.double(), exact, rtol=0, atol=2e-6)


def test_a_comparator_tells_one_bit():
    assert set(read(Noise(1.0) | Comparator(0.2, threshold=0.5), 0.5).ravel()) == {-0.2, 0.2}
    assert read(Comparator(0.2, threshold=0.5), (0.6, 0.4), 1).tolist() == [[0.2, -0.2]]
    gone = [torch.full((1, 2, 1, 1), torch.nan)]
    assert all(part.read(gone, None)[0].isnan().all() for part in (Comparator(0.2), Converter(bits=3, span=(0, 1))))


def test_a_differential_read_resolves_what_two_direct_ones_do_not():
    fine, coarse = Converter(bits=8, span=(-0.01, 0.01)), Converter(bits=8, span=(-4, 4))
    upper, lower = 1.002, 1.0
    direct = read(coarse, (upper, lower), 1)[0]
    split = read(Differential(fine, coarse), (upper, lower), 1)[0]
    assert direct[0] == direct[1]
    assert split[0] - split[1] == pytest.approx(0.002, abs=0.02 / 2**9)
    assert split.mean() == pytest.approx(1, abs=4 / 2**8)
    signs = read(Differential(Comparator(1e-3)), (upper, lower), 1)[0]
    assert signs[0] - signs[1] == pytest.approx(1e-3)


# --- N reads

LAWS = {
    "noise": (Noise(0.1), 1 / 16),
    "correlated": (Noise(0.1, correlation=0.5), 0.5 + 0.5 / 16),
    "relative": (RelativeNoise(0.1), 1 / 16),
    "heavy tails": (HeavyTails(0.1, freedom=6), 1 / 16),
    "drift": (Drift(0.1, 1.0), 1.0),
    "noise, then a fine converter": (Noise(0.1) | Converter(lsb=0.1), 1 / 16),
    "mismatch": (Mismatch(offset=0.1) | Noise(0.1), 1 / 16),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("averaging", ["shortcut", "explicit"])
def test_the_mean_of_n_reads_varies_as_the_part_says(name, averaging):
    part, share = LAWS[name]
    one, mean = (read(Chain((part,), n, averaging), 1.0, 8000, seed=n)[:, 1].var() for n in (1, 16))
    assert mean / one == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize(
    "part", [Noise(0.1, correlation=0.3), Flicker(0.1, 1e-3, 1e-4), RelativeNoise(0.1), HeavyTails(0.1, freedom=3)],
    ids=str,
)  # fmt: skip
def test_the_mean_drawn_at_once_is_the_mean_of_reads_drawn_one_by_one(part):
    drawn = [
        read(Chain((part,), 6, averaging), 1.0, 6000, seed=7 + k)
        for k, averaging in enumerate(("shortcut", "explicit"))
    ]
    for a, b in zip(drawn[0].T, drawn[1].T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    covariances = [np.cov(d.T) for d in drawn]
    if not isinstance(part, HeavyTails):  # of 3 degrees of freedom the variance of a variance is infinite
        assert np.allclose(*covariances, atol=0.1 * covariances[0].max())


def test_averaging_helps_a_converter_only_where_noise_dithers_it():
    converter, v = Converter(lsb=0.1), 0.537

    def error(sigma, samples):
        parts = converter if sigma is None else Noise(sigma) | converter
        return abs(read(Chain((parts,), samples), v, 400).mean() - v)

    assert error(None, 64) == error(None, 1) == pytest.approx(0.037)
    assert error(0.005, 64) == pytest.approx(0.037, abs=1e-3)  # too little noise ever to reach another code
    assert error(0.05, 64) < 0.002
    # had the noise been averaged first, the mean would not leave its code
    assert Chain((Noise(0.05), converter), 64).reads == 64
    assert Chain((converter, Noise(0.05)), 64).reads == 1


# --- composition


def test_a_chain_reads_as_one_line_and_says_how_often_it_draws():
    chain = (Mismatch(offset=3.4e-3, gain=0.01, seed=2) | Noise(5e-5) | Converter(bits=13, span=(-1, 1))).averaged(4)
    line = "mismatch offset 3.4 mV, gain 1 % (seed 2) | noise 50 µV | converter 13 bits of 244.1 µV, -1 to 1 V"
    assert str(chain) == f"{line} | mean of 4 reads"
    assert (chain.reads, chain.draws) == (4, 4)
    assert str(Chain(())) == "exact"
    assert str(Chain((None, Noise(0.0)))) == "noise 0 V"  # off is not 0
    assert str(Noise(torch.tensor([1e-6, 1e-3]))) == "noise 1 µV to 1 mV, one a member"
    assert Chain((Chain((Noise(1.0), None)), Comparator(1.0))).parts == (Noise(1.0), Comparator(1.0))
    assert "difference [comparator ±1 mV at 0 V], mean [exact]" in str(Noise(1e-5) | Differential(Comparator(1e-3)))


@pytest.mark.parametrize(("value", "text"), [(0, "0 V"), (1e-3, "1 mV"), (0.9996e-3, "999.6 µV"), (12e3, "12 kV"),
                                             (-5e-5, "-50 µV"), (1.66e-12, "1.66 pV"), (1, "1 V")])  # fmt: skip
def test_quantities_have_their_prefix(value, text):
    assert quantity(value, "V") == text


def test_read_outs_written_elsewhere_stand_in_a_chain_and_are_read_n_times():
    class Uniform:
        def noise(self, shape, generator):
            return torch.rand(shape, generator=generator) - 0.5

        def read(self, states, noise):
            return [v + xi for v, xi in zip(states, noise, strict=True)]

    chain = Chain((Uniform(), Noise(1e-9), Converter(lsb=1e-3)), samples=9)
    assert (chain.reads, chain.draws) == (9, 18)
    assert read(chain, 1.0).std() == pytest.approx((1 / 12 / 9) ** 0.5, rel=0.05)
    gaussian = Chain((epkit.GaussianReadout(0.1),))
    assert read(gaussian, 1.0).std() == pytest.approx(0.1, rel=0.05)
    assert chain.program(1, [4]) is None


def test_presets_have_sources_and_their_published_numbers():
    assert all(p.source and isinstance(preset(name), Chain) for name, p in PRESETS.items())
    assert str(preset("XOR board")) == "noise 8 µV | converter 16 bits of 187.5 µV, -6.144 to 6.144 V"
    assert "50 µV" in str(preset("kT/C"))[:14] or "49.9" in str(preset("kT/C"))
    spread = read(Noise(1.0) | preset("13 bits", full_scale=1000.0), 0.0) - read(Noise(1.0), 0.0)
    assert spread.std() / 1000 == pytest.approx(1 / 2**13 / 12**0.5, rel=0.05)
    assert str(preset("aihwkit", full_scale=10)).startswith("noise 50 mV | converter 9 bits")
    with pytest.raises(ValueError, match=r"name = 'aihwkti': did you mean aihwkit\?"):
        preset("aihwkti")


# --- training


def problem(dtype=DOUBLE, members=2, sizes=(12, 20, 34, 6)):
    generator = torch.Generator().manual_seed(0)
    net = epkit.DeepResistiveNetwork(sizes, input_gain=3.0, members=members, dtype=dtype)
    x = torch.rand(48, 12, generator=generator, dtype=DOUBLE).to(dtype)
    return net, x * (x < 0.5), torch.arange(48) % 6


def trained(readout, name, **options):
    """The engine that trained, and the parameters after it."""
    net, x, y = problem(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = epkit.train(
            net, x, y, epochs=1, batch_size=4, beta=0.1, iterations=3, learning_rates=(0.01,) * 3,
            seed=range(net.members), readout=readout, engine=name, looks=1,
        )  # fmt: skip
    return history.engine, [*net.weights, *net.biases]


def parameters(readout, name, **options):
    used, found = trained(readout, name, **options)
    assert used == name
    return found


STATIC = st.sampled_from([
    Mismatch(offset=0.01, gain=0.1), Mismatch(gain=0.1, seed=(5, 6)), Converter(bits=6, span=(-1, 1.03)),
    Converter(bits=9, span=[(-1, 1), (-0.5, 0.5), (0.013, 0.7)]), Converter(lsb=3e-3), None,
])  # fmt: skip
# Of difference and mean: on other grids, for the mean of two codes lies half way between two of the same converter's.
AFTER = st.sampled_from([
    Mismatch(offset=0.01, gain=0.1), Converter(bits=7, span=(-1.007, 1.031)), Converter(lsb=2.9e-3), None,
])  # fmt: skip
RANDOM = st.sampled_from([
    Noise(torch.tensor([1e-3, 2e-2])), Noise(0.0), RelativeNoise(0.1), HeavyTails(1e-3), Drift(0.01, 0.5),
    Flicker(1e-3, 1e-3, 1e-5), Noise(1e-2, correlation=0.4),
])  # fmt: skip


@compiled
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(RANDOM | STATIC, min_size=1, max_size=4), AFTER, AFTER, st.sampled_from([1, 1, 3]), st.booleans())
def test_the_engine_equals_torch(parts, difference, mean, samples, differential):
    parts = [*parts, Differential(difference, mean)] if differential else parts
    readout = Chain(tuple(parts), samples)
    native, eager = (parameters(readout, name) for name in ("native", "eager"))
    for a, b in zip(native, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@compiled
@pytest.mark.parametrize(
    "readout",
    [Noise(1e-3), Mismatch(0.01, 0.1) | Noise(1e-3), Noise(0.1) | Comparator(0.01),
     Noise(0.1) | Differential(Comparator(0.01))],
    ids=str,
)  # fmt: skip
def test_the_engine_equals_torch_in_single_precision_and_with_a_comparator(readout):
    for dtype, tolerance in ((torch.float32, 1e-4), (DOUBLE, 1e-11)):
        native, eager = (parameters(readout, name, dtype=dtype) for name in ("native", "eager"))
        if dtype == DOUBLE or not str(readout).endswith(("0 V", "exact]")):
            for a, b in zip(native, eager, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@compiled
def test_noise_is_the_gaussian_read_out():
    """The same random numbers, by the general path and by the fast one."""
    for a, b in zip(parameters(Noise(1e-2), "native"), parameters(epkit.GaussianReadout(1e-2), "native"), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def rising(images):
    return 1 + images / 16


@pytest.mark.parametrize("name", ["eager", pytest.param("native", marks=compiled)])
def test_the_reads_of_a_chain_may_follow_training(name):
    """N is counted by hand; a chain without noise doesn't care; training that was interrupted ends as it would have."""

    def trained(samples, *parts, noise=1e-2, engine=name):
        net, x, y = problem()
        readout, state = Chain((Noise(noise), Converter(lsb=1e-3)), samples), epkit.State()
        for epochs in parts or (2,):
            history = epkit.train(
                net, x, y, epochs=epochs, batch_size=4, beta=0.1, iterations=3, learning_rates=(0.01,) * 3,
                readout=readout, engine=engine, looks=2, seed=(0, 1), state=state,
            )  # fmt: skip
        return torch.cat([w.flatten() for w in net.weights]), history

    whole, history = trained(rising)
    steps = np.array([int(rising(4 * step)) for step in range(24)]).reshape(4, 6)
    np.testing.assert_array_equal(history.reads, steps.mean(1)[:, None].repeat(2, 1))
    torch.testing.assert_close(trained(rising, 1, 2)[0], whole, rtol=0, atol=0)
    torch.testing.assert_close(trained(rising, noise=0.0)[0], trained(1, noise=0.0)[0], rtol=0, atol=1e-12)
    exact = trained(1, noise=0.0)[0]
    one, four, many = (float((trained(n)[0] - exact).norm()) for n in (lambda n: 1, 4, lambda n: 64))
    assert many < 0.5 * four < 0.5 * one
    torch.testing.assert_close(trained(rising, engine="eager")[0], whole, rtol=0, atol=1e-11)


def test_many_reads_later_on_take_no_more_memory_than_many_from_the_beginning(monkeypatch):
    net, x, y = problem()
    shapes, original = [], training._noise
    monkeypatch.setattr(training, "_noise", lambda *a: shapes.append(a[1][0] * a[0].draws) or original(*a))
    readout = Chain((Noise(1e-2), Converter(lsb=1e-3)), lambda images: 1 if images < 48 else 4096)
    options = {"batch_size": 4, "beta": 0.1, "iterations": 3, "learning_rates": (0.01,) * 3, "seed": (0, 1)}
    epkit.train(net, x, y, epochs=2, readout=readout, **options)
    assert 4096 in shapes  # steps of a block times draws of a step
    assert max(shapes) <= max(4096, 2**20 // (2 * 4 * sum(net.sizes[1:])))


class Uniform:
    """Noise that is not Gaussian, and what a Gaussian read-out makes of it."""

    read, scale = epkit.GaussianReadout.read, epkit.GaussianReadout.scale
    sigma = 0.1

    def noise(self, shape, generator=None):
        return torch.rand(shape, generator=generator)


class Doubled(Chain):
    def read(self, states, noise):
        return [2 * v for v in super().read(states, noise)]


class Later:
    """Exact until 24 images have been seen, then far off."""

    samples = 1

    def at(self, images):
        return self if images < 24 else Chain((Mismatch(gain=5.0),), samples=2)

    def noise(self, shape, generator=None):
        return None

    def read(self, states, noise):
        return list(states)


@compiled
@pytest.mark.parametrize("readout", [Uniform(), Doubled((Noise(1e-2),)), Later()], ids=lambda r: type(r).__name__)
def test_no_engine_passes_over_what_a_read_out_does(readout):
    """A method that is borrowed, inherited or comes into play late: as in torch, and not as exact reads."""
    cases = trained(readout, "auto"), trained(readout, "eager"), trained(None, "auto")
    found, reference, exact = (torch.cat([p.flatten() for p in parts]) for _, parts in cases)
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-11)
    assert not torch.allclose(found, exact, rtol=0, atol=1e-6)


def test_a_gradient_reads_as_a_chain_does_at_the_beginning():
    net, x, _ = problem()
    target = torch.eye(6, dtype=DOUBLE)[torch.arange(48) % 6]

    def estimate(samples):
        generator, readout = torch.Generator().manual_seed(0), Chain((Noise(1e-2),), samples)
        return epkit.gradient(net, x, target, beta=0.1, iterations=3, readout=readout, generator=generator).weights[1]

    assert torch.equal(estimate(lambda images: 4 + images), estimate(4))
    assert str(Chain((Noise(1e-3),), rising)) == "noise 1 mV | mean of as many reads as training asks for"
    with pytest.raises(ValueError, match=r"samples\(0\) = inf: must be a finite number >= 1"):
        estimate(schedule.after(8))


def test_a_member_is_read_alike_in_any_company():
    chain = Chain((Mismatch(0.01), Noise(1e-2), Converter(lsb=1e-2)), 2)
    both, alone = (parameters(chain, "eager", members=m) for m in (2, 1))
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=0, atol=1e-12)


@compiled
def test_what_does_not_fit_never_reaches_native_code():
    class Wrong(Part):
        def __init__(self, *operations):
            self.listed = list(operations)

        def operations(self, members, units):
            return self.listed

    values = torch.zeros(2, dtype=DOUBLE)
    wrong = {
        "values has the shape \\(3,\\)": Operation("add", torch.zeros(3)),
        "draw = 0: must leave room for 1 reads of 0": Operation("add", values),
        "draw = -1": Operation("multiply", values, draw=-1),
        "a 'round' takes \\(3, 4\\)": Operation("round", torch.zeros(2, 4)),
        "kind = 'subtract'": Operation("subtract", values),  # type: ignore[arg-type]
        "side = 7": Operation("sign", torch.zeros(3, 2), side=7),
        "a 'affine' takes": Operation("affine", torch.zeros(2, 2, 59)),
    }
    for message, operation in wrong.items():
        with pytest.raises(ValueError, match=message):
            parameters(Wrong(operation), "native")


def test_a_read_out_of_hardware_trains_a_network():
    digits = epkit.data.load("digits", train=600, test=200)
    readout = (Mismatch(offset=1e-3) | Noise(1e-3) | Converter(bits=14, span=(-20, 20))).averaged(2)
    net = epkit.DeepResistiveNetwork((64, 32, 10), input_gain=20.0)
    history = epkit.train(
        net, digits.x_train, digits.y_train, epochs=3, batch_size=8, beta=0.5, iterations=4,
        learning_rates=(0.01, 0.012), readout=readout, test=(digits.x_test, digits.y_test),
    )  # fmt: skip
    assert float(history.test_error[-1, 0]) < 0.4


def test_a_sweep_takes_a_function_that_makes_read_outs(tmp_path):
    def board(bits):
        return lambda sigma, samples, averaging: Chain((Noise(sigma), Converter(bits, (-20, 20))), samples, averaging)

    sweep = {
        "dataset": ["digits"], "sigma": [0.0, 0.05], "learning_rate": [0.05], "seeds": 1, "hidden": [16],
        "samples": [2], "input_gain": 60.0, "beta": 0.1, "iterations": 3, "epochs": 1,
        "train_images": 80, "test_images": 40,
    }  # fmt: skip
    fine, coarse = (epkit.run(sweep, tmp_path / f"{bits}.nc", readout=board(bits)) for bits in (16, 4))
    assert not set(fine["run"].values.flat) & set(coarse["run"].values.flat)
    assert not np.array_equal(fine.conductance, coarse.conductance)


@pytest.mark.filterwarnings("ignore:the C.. engine")
def test_a_sweep_may_draw_a_circuit_for_each_seed_of_training(tmp_path):
    def one(sigma, samples, averaging):
        return Chain((Mismatch(offset=0.05), Noise(sigma)), samples, averaging)

    def each(sigma, samples, averaging, seed):
        return Chain((Mismatch(offset=0.05, seed=seed), Noise(sigma)), samples, averaging)

    sweep = {
        "dataset": ["digits"], "sigma": [0.01], "learning_rate": [0.05], "seeds": 2, "hidden": [16], "input_gain": 60.0,
        "beta": 0.1, "iterations": 3, "epochs": 1, "train_images": 80, "test_images": 40,
    }  # fmt: skip
    same, own = (epkit.run(sweep, tmp_path / f"{f.__name__}.nc", readout=f).conductance for f in (one, each))
    np.testing.assert_array_equal(own.sel(seed=0), same.sel(seed=0))
    assert not np.array_equal(own.sel(seed=1), same.sel(seed=1))


# --- refusals, names


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(-1.0), "sigma = -1.0: must be >= 0"),
        (lambda: Noise("a"), "sigma = 'a'"),
        (lambda: Noise(1.0, correlation=1.5), "correlation = 1.5: must be a share, from 0 to 1"),
        (lambda: thermal(0.0), "capacitance = 0.0: must be a finite number > 0"),
        (lambda: thermal(1e-12, -3), "temperature = -3"),
        (lambda: RelativeNoise(float("nan")), "share holds NaN"),
        (lambda: HeavyTails(1.0, freedom=2.0), "freedom = 2.0: must be a finite number > 2"),
        (lambda: Drift(1.0, -1.0), "gap = -1.0"),
        (lambda: Flicker(1.0, 0.0, 1.0), "gap = 0.0"),
        (lambda: Flicker(1.0, 1.0, 1.0, longest=1.0), "longest = 1.0: must be a finite number > 2"),
        (lambda: Mismatch(offset=-1.0), "offset = -1.0"),
        (lambda: Mismatch(gain=1.0, seed=-1), "seed = -1"),
        (lambda: Converter(bits=8), "bits = 8, span = None, lsb = None: give two, or lsb alone"),
        (lambda: Converter(bits=8, span=(0, 1), lsb=1.0), "give two"),
        (lambda: Converter(bits=0, span=(0, 1)), "bits = 0: must be an integer from 1 to 24"),
        (lambda: Converter(bits=8, span=(1, 0)), "span = \\(1, 0\\): must be low < high"),
        (lambda: Converter(bits=8, span=3.0), "span = 3.0: must be \\(low, high\\) in V"),
        (lambda: Converter(lsb=0.0), "lsb = 0.0"),
        (lambda: Converter(lsb=2.0, span=(0, 1)), "lsb = 2.0: must be at most half of the span"),
        (lambda: Comparator(0.0), "level = 0.0"),
        (lambda: Comparator(1.0, threshold="a"), "threshold = 'a'"),
        (lambda: Chain((3,)), "parts\\[0\\] = 3: must be a read-out"),
        (lambda: Chain((Noise,)), "parts\\[0\\] = .*must be a read-out"),
        (lambda: Chain(3), "parts\\[0\\] = 3"),
        (lambda: Chain((Noise(1.0),), samples=0), "samples = 0"),
        (lambda: Chain((Noise(1.0),), averaging="no"), "averaging = 'no': allowed are 'shortcut', 'explicit'"),
        (lambda: Chain((Chain((Noise(1.0),), 2), Comparator(1.0))), "a mean must be the last thing"),
        (lambda: Differential(Noise(1.0)), "difference = 'noise 1 V': must be of parts without noise"),
        (lambda: Differential(None, Differential()), "mean = .*: must be of parts without noise"),
        (lambda: Measured("nowhere.csv"), "path = 'nowhere.csv': must be the path of a file"),
        (lambda: preset(3), "name = 3"),
        (lambda: preset("aihwkit", 0), "full_scale = 0"),
    ],
)
def test_impossible_parts_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (Noise(torch.ones(3)), "sigma = .*one number or \\(2,\\)"),
        (Chain((Mismatch(gain=1.0, seed=(1, 2, 3)),)), "seed has 3 values for 2 members"),
        (Chain((Converter(bits=4, span=[(0, 1)] * 2),)), "span has 2 pairs for 3 layers"),
        (Chain((epkit.GaussianReadout(torch.ones(3)),)), "sigma has 3 values for 2 members"),
    ],
    ids=str,
)
def test_what_is_for_another_network_is_refused_before_any_step(readout, message):
    for name in ("native", "eager"):
        with pytest.raises(ValueError, match=message):
            parameters(readout, name)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "a\n1\nx\n", "1\n2\ninf\n", "1,2\n3\n"])
def test_files_that_hold_no_repeated_reads_are_refused(tmp_path, text):
    (tmp_path / "reads.csv").write_text(text)
    with pytest.raises(ValueError, match=r"path = .*: must"):
        Measured(tmp_path / "reads.csv")


class Bare:
    pass


def test_read_outs_made_by_one_function_are_told_apart_by_what_it_was_given(measured):
    def make(part, unused=None):
        def readout(sigma, samples, averaging):
            return Chain((Noise(sigma), part), samples)

        return readout

    parts = [Converter(bits=8, span=(0, 1)), Converter(bits=9, span=(0, 1)), Mismatch(torch.tensor([0.1, 0.2])),
             Mismatch(torch.tensor([0.1, 0.3])), Measured(measured), Measured(measured, factor=2.0), preset("kT/C"),
             lambda v: v]  # fmt: skip
    names = [identity("readout", make(part)) for part in parts]
    assert len(set(names)) == len(parts)
    assert names == [identity("readout", make(part)) for part in parts]
    assert "values" not in identity("network", Bare)  # nothing but its source
    with pytest.raises(ValueError, match="readout: it is made with a object"):
        identity("readout", make(object()))


def test_the_page_s_own_read_out_trains_and_its_table_lists_every_part():
    page = (CHECKOUT / "docs" / "readouts.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})  # the page's own words, held to by running them
    for name in [*(p.__name__ for p in Part.__subclasses__() if not p.__name__.startswith("_")), *PRESETS]:
        assert f"`{name}`" in page, name
