"""The exact steady state and its gradient against relaxation, autograd and Equilibrium Propagation; and the study."""

import numpy as np
import pytest
import torch

import epkit
from epkit import DeepResistiveNetwork, figures, gradient, study
from epkit.messages import ParameterError
from epkit.reference import exactness, spice
from epkit.reference.solutions import backpropagated
from epkit.sweep.inputs import profile_settings
from epkit.sweep.parameters import Oracles

DOUBLE = torch.float64


@pytest.fixture(params=[(4, 6, 3), (5, 8, 6, 3), (3, 6, 6, 6, 2)], ids=str)
def problem(request):
    sizes = request.param
    net = DeepResistiveNetwork(sizes, input_gain=5.0, members=2, seed=(3, 4), dtype=DOUBLE)
    net.weights = [w + 0.05 for w in net.weights]
    generator = torch.Generator().manual_seed(2)
    net.biases = [0.1 * torch.randn(b.shape, generator=generator, dtype=DOUBLE) for b in net.biases]
    x = torch.rand(4, sizes[0], generator=generator, dtype=DOUBLE)
    return net, x, torch.rand(4, sizes[-1], generator=generator, dtype=DOUBLE)


@pytest.mark.parametrize("beta", [0.0, 0.2, -0.1])
def test_the_steady_state_is_where_relaxation_ends(problem, beta):
    net, x, target = problem
    goal = target if beta else None
    for member in range(2):
        exact = exactness.steady_state(net, x, goal, beta, member=member)
        for start in (exact, [-v for v in exact]):  # the right guess, and one that is wrong everywhere
            for v, w in zip(exactness.steady_state(net, x, goal, beta, member=member, start=start), exact, strict=True):
                torch.testing.assert_close(v, w, atol=1e-13, rtol=0)
        for v, w in zip(net.relax(x, 400, goal, beta), exact, strict=True):
            torch.testing.assert_close(v[member], w, atol=1e-10, rtol=0)


def test_a_unit_without_conductance_stays_at_zero_and_a_bottomless_energy_is_refused(problem):
    net, x, target = problem
    net.weights[0][:, :, 1] = 0
    net.weights[1][:, 1, :] = 0
    net.biases[0][:, 1] = 0
    assert (exactness.steady_state(net, x)[0][:, 1] == 0).all()
    with pytest.raises(RuntimeError, match="positive-definite"):
        exactness.steady_state(net, x, target, -100.0)


def relative(estimate, reference):
    return float((estimate - reference).norm() / reference.norm())


def test_the_implicit_gradient_is_that_of_autograd_and_of_a_small_nudge(problem):
    net, x, target = problem
    for member in range(2):
        weights, biases = exactness.implicit_gradient(
            net, x, target, exactness.steady_state(net, x, member=member), member=member
        )
        unrolled = backpropagated(net, x, target, iterations=400)
        nudged = gradient(net, x, target, beta=1e-4, iterations=400)
        for g, by_autograd, by_nudge in zip(weights, unrolled, nudged.weights, strict=True):
            assert relative(by_autograd[member], g) < 1e-8
            assert relative(by_nudge[member], g) < 1e-6
        for g, by_nudge in zip(biases, nudged.biases, strict=True):
            assert relative(by_nudge[member], g) < 1e-6


@pytest.fixture(scope="module")
def smoke():
    return profile_settings("smoke", "06_oracles", Oracles)[0]


@pytest.mark.ngspice
def test_the_study_is_computed_once_and_says_what_is_known(smoke, tmp_path):
    ds = epkit.measure_exactness(smoke, tmp_path / "06.nc")
    written = (tmp_path / "06.nc").stat().st_mtime_ns
    assert epkit.measure_exactness(smoke, tmp_path / "06.nc").identical(ds)
    assert (tmp_path / "06.nc").stat().st_mtime_ns == written
    last = ds.isel(iteration=-1)
    assert float(last.distance.max()) < 1e-8
    assert float(last.relative_error.sel(reference="converged").max()) < 1e-6
    small = ds.beta_error.sel(nudge=[1e-4, 1e-2], precision="float64")
    ratio = small.isel(nudge=1) / small.isel(nudge=0)
    np.testing.assert_allclose(ratio.sel(estimator="centered"), 1e4, rtol=0.2)
    np.testing.assert_allclose(ratio.sel(estimator="positive"), 1e2, rtol=0.1)
    assert float(ds.beta_error.sel(precision="float32", estimator="centered").isel(nudge=0).max()) > 1e-3
    assert float(ds.diode_error.sel(circuit="real").max()) < 0.01
    assert float(ds.diode_error.sel(circuit="ideal").isel(scale=-1).min()) > 0.1


def test_without_ngspice_the_diodes_wait_for_it(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(spice, "available", lambda: False)
    with pytest.warns(UserWarning, match="ngspice is not installed"):
        ds = epkit.measure_exactness(smoke, tmp_path / "06.nc")
    assert ds["shift"].isnull().all()
    assert set(study.claim_exactness(ds).verdict.iloc[-2:]) == {"not testable"}
    words = [text.get_text() for ax in figures.real_diodes(ds).axes for text in ax.texts]
    assert words == ["not computed: ngspice was not installed"]
    assert epkit.measure_exactness(smoke, tmp_path / "06.nc").identical(ds)
    monkeypatch.setattr(spice, "available", lambda: True)
    assert exactness.stored(tmp_path / "06.nc", Oracles(**smoke)) is None


def test_parameters_that_make_no_study_are_refused(smoke, tmp_path):
    for change, message in (
        ({"iterations": [1, 2]}, r"must contain the networks' own, \[4, 5\]"),
        ({"pool": 3}, "pool = 3: must divide the images' sides"),
        ({"images": 10**6}, "images = 1000000: scikit-learn digits allows 1 to"),
    ):
        with pytest.raises(ParameterError, match=message):
            epkit.measure_exactness(smoke | change, tmp_path / "06.nc")
