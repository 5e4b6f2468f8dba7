"""The limit predicted before training: its constant from the stores, its scaling, its parts against simulations."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import only_half_way

import epkit
from epkit import data, study
from epkit.ep import prediction
from epkit.ep.prediction import CONSTANT, SCATTER, WIDE, signals_before_training
from epkit.networks.hopfield import DeepHopfieldNetwork
from epkit.study import law
from epkit.sweep import before, ensemble, store
from epkit.sweep.parameters import Sweep

NOTEBOOK, EARLIER = "11_what_sets_the_limit", "08_architecture"
FIXED = {"beta": 0.3, "iterations": 5, "learning_rate": 0.05, "batch_size": 4}
SWEEP = {
    "dataset": ["digits"], "sigma": [1e-3], "learning_rate": [0.2], "seeds": 2, "hidden": [12, 12], "input_gain": 50.0,
    "beta": 0.1, "iterations": 4, "train_images": 80, "test_images": 40, "epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    split = data.load("digits", train=64, test=10)
    return split.x_train, torch.eye(10)[split.y_train]


def network(members=1, sizes=(64, 16, 12, 10)):
    options = {"input_gain": 40.0, "members": members, "dtype": torch.float64}
    return epkit.DeepResistiveNetwork(sizes, seed=tuple(range(members)), **options)


def predicted(digits, net=None, **change):
    return epkit.predict_critical_limit(net or network(), *digits, **FIXED | change)


def needed(digits, **change):
    return epkit.readouts_needed(network(), *digits, **FIXED | {"sigma": 0.01} | change)


@pytest.fixture(scope="module")
def laws():
    """The networks of notebooks 08 and 11, beside predictions of c = 1; limits by the definition that counts alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EPKIT_RESULTS", raising=False)
        only_half_way(patch)
        found = []
        for name, kind in ((EARLIER, "earlier"), (NOTEBOOK, "predicted")):
            before = store.read(store.results("study") / f"{NOTEBOOK}.{kind}.nc")
            found.append(study.law_networks(study.networks_of("study", name), before, 1.0))
        yield found


def ratios(networks):
    """Measured limits over predictions of c = 1, of the networks that can be judged."""
    judged = networks.reason.values == ""
    return networks.limit.values[judged] / networks.prediction.values[judged]


def test_the_shipped_constant_is_the_pooled_fit_of_both_notebooks(laws):
    every = np.log(np.concatenate([ratios(networks) for networks in laws]))
    assert float(f"{np.exp(every.mean()):.3g}") == CONSTANT
    assert round(float(np.exp(every.std(ddof=1))), 2) == SCATTER
    both = xr.concat([networks[["limit", "prediction", "reason"]] for networks in laws], "network")
    assert study.fitted_constant(both) == pytest.approx((CONSTANT, SCATTER, len(every)), rel=5e-3)


def test_the_constant_of_notebook_08_holds_for_the_networks_of_notebook_11(laws):
    """What the notebook says of networks that its constant has not seen, whatever constant is shipped."""
    earlier, networks = laws
    constant = study.fitted_constant(earlier)[0]
    assert constant == pytest.approx(np.exp(np.log(ratios(earlier)).mean()))
    networks = networks.assign(prediction=constant * networks.prediction)
    off = ratios(networks)
    share = ((off > 0.5) & (off < 2)).mean()
    assert share >= study.registered_claims().later[NOTEBOOK].claims["prediction"].inside[0]
    assert float(law.within(networks).mean()) == share
    assert len(off) > 30


def test_the_interval_is_the_scatter_and_the_second_layer_decides(digits):
    found = predicted(digits)
    assert found.limit == found.by_layer[1]
    assert len(found.by_layer) == 3
    assert (found.high / found.limit, found.limit / found.low) == pytest.approx((SCATTER**WIDE,) * 2)


@settings(max_examples=6, deadline=None)
@given(factor=st.sampled_from([2, 3, 7, 64]), seed=st.integers(0, 9))
def test_it_scales_exactly(digits, factor, seed):
    """As sqrt(N), as sqrt(1/eta), by rates for each layer likewise, and as sqrt(B) where images don't differ."""
    net = epkit.DeepResistiveNetwork((64, 16, 10), input_gain=40.0, seed=seed)
    limit = predicted(digits, net).limit
    assert predicted(digits, net, samples=factor).limit == pytest.approx(limit * factor**0.5)
    assert predicted(digits, net, learning_rate=0.05 * factor).limit == pytest.approx(limit / factor**0.5)
    rates = [predicted(digits, net, learning_rate=[k * r for r in (0.1, 0.2)]).limit for k in (1, factor)]
    assert rates[1] == pytest.approx(rates[0] / factor**0.5)
    same = tuple(values[:1].repeat(128, 1) for values in digits)
    of_batch = [predicted(same, net, batch_size=b, learning_rate=[0.1, 0.2]).limit for b in (1, min(factor, 64))]
    assert of_batch[1] == pytest.approx(of_batch[0] * min(factor, 64) ** 0.5)


def test_it_is_in_proportion_to_c(digits, monkeypatch):
    before = predicted(digits)
    monkeypatch.setattr(prediction, "CONSTANT", 2 * CONSTANT)
    after = predicted(digits)
    assert after.by_layer == pytest.approx([2 * limit for limit in before.by_layer])


def test_members_are_averaged_geometrically(digits):
    net = network(members=3)
    alone = []
    for member in range(3):
        one = network()
        one.weights = [w[member : member + 1] for w in net.weights]
        alone.append(predicted(digits, one, beta=0.1, learning_rate=[0.1, 0.2, 0.3]).limit)
    together = predicted(digits, net, beta=0.1, learning_rate=[0.1, 0.2, 0.3]).limit
    assert together == pytest.approx(math.prod(alone) ** (1 / 3), rel=1e-2)  # each has noise of its own


@settings(max_examples=8, deadline=None)
@given(
    sigma=st.floats(1e-4, 10.0), margin=st.floats(0.3, 10.0), batch=st.sampled_from([1, 4, 16]),
    eta=st.sampled_from([0.01, 0.2]),
)  # fmt: skip
def test_read_outs_needed_are_the_inverse(digits, sigma, margin, batch, eta):
    change = {"batch_size": batch, "learning_rate": eta}
    found = needed(digits, sigma=sigma, margin=margin, **change)
    assert predicted(digits, samples=found.needed, **change).limit >= margin * sigma * (1 - 1e-9)
    if found.needed > 1:
        assert predicted(digits, samples=found.needed - 1, **change).limit < margin * sigma
    assert 1 <= found.low <= found.needed <= found.high
    limit = predicted(digits, **change)
    assert found.high == math.ceil((margin * sigma / limit.low) ** 2)
    assert needed(digits, sigma=0.0, **change) == (1, 1, 1)


@pytest.mark.parametrize("estimator", ["centered", "positive", "negative"])
def test_the_noise_of_an_estimate_is_that_of_many_drawn(digits, estimator):
    x, t = digits[0][:8], digits[1][:8]
    net, sigma, repeats, beta = network(), 1e-4, 150, 0.3
    signals = signals_before_training(net, x, t, beta=beta, iterations=5, batch_size=4, estimator=estimator)
    generator = torch.Generator().manual_seed(3)
    readout = epkit.GaussianReadout(sigma, samples=4)
    options = {"beta": beta, "iterations": 5, "estimator": estimator}
    draws = [epkit.gradient(net, x, t, readout=readout, generator=generator, **options) for _ in range(repeats)]
    for layer, said in enumerate(signals.noise[0]):
        drawn = torch.stack([g.weights[layer][0] for g in draws]).var(0).mean().sqrt()
        # one draw stands behind `signals`, of 8 images
        assert float(drawn) == pytest.approx(float(said) * sigma / math.sqrt(8 * 4), rel=0.2)


def test_the_formula_by_hand(digits):
    """c sqrt(B) sqrt(g w/r)/n from the drops and the gradients of single images, without the package's passes."""
    net, (x, t) = network(sizes=(64, 16, 10)), digits
    beta, batch, rate, images = 0.3, 4, 0.2, len(digits[0])
    x, t = x.double(), t.double()
    free = net.relax(x, 5)
    pair = [net.relax(x, 5, t, sign * beta, free) for sign in (1, -1)]
    drops = [v[0][0][:, :, None] - v[1][0][:, None, :] for v in pair]  # across the second layer of conductances
    n = math.sqrt(2 * float(sum((d**2).mean() for d in drops)) / (2 * beta) ** 2)
    single = (drops[0] ** 2 - drops[1] ** 2) / (4 * beta)
    of_all = float(single.mean(0).square().mean())
    of_batch = float(torch.stack([g.mean(0).square().mean() for g in single.split(batch)]).mean())
    g = math.sqrt((images * of_all - batch * of_batch) / (images - batch))
    w = float(net.weights[1].mean())
    expected = CONSTANT * math.sqrt(batch) * math.sqrt(g * w / rate) / n
    found = predicted(digits, net, beta=beta, learning_rate=[0.1, rate], batch_size=batch).limit
    assert found == pytest.approx(expected, rel=0.03)  # n is drawn there
    relative = predicted(digits, net, beta=beta, learning_rate=0.05, batch_size=batch).limit
    assert relative == pytest.approx(found * math.sqrt(rate / (0.05 * w / math.sqrt(of_batch))), rel=1e-6)


def test_the_mean_gradient_is_that_of_many_images_not_of_the_few_at_hand(digits):
    """Its square, from 4 images at a time, is on average that of all; that of the 4 themselves is not."""
    net, (x, t) = network(sizes=(64, 16, 10)), digits
    options = {"beta": 0.3, "iterations": 5}
    whole = [float(g.square().mean()) for g in epkit.gradient(net, x, t, **options).weights]
    generator, found, plain = torch.Generator().manual_seed(1), [], []
    for _ in range(150):
        rows = torch.randint(len(x), (4,), generator=generator)
        few = signals_before_training(net, x[rows], t[rows], batch_size=1, estimator="centered", **options)
        found.append(few.mean_gradient[0].square())
        plain.append(torch.stack([g.square().mean() for g in epkit.gradient(net, x[rows], t[rows], **options).weights]))
    for layer, square in enumerate(whole):
        values, biased = (torch.stack(each)[:, layer].double() for each in (found, plain))
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - square) < 4 * error
        assert float(biased.mean()) - square > 4 * error


def test_a_store_of_predictions_knows_no_constant(tmp_path, monkeypatch):
    found = epkit.predicted({"small": SWEEP}, tmp_path / "predicted.nc")
    assert found.limit_over_c.dims == ("network", "seed", "layer")
    sweep = Sweep(**SWEEP)
    split = ensemble.data(sweep, "digits").train
    rates = [0.2 * r for r in ensemble.layer_rates(sweep, "digits", "cpu")]
    for seed in (0, 1):
        net = epkit.DeepResistiveNetwork((64, 12, 12, 10), input_gain=50.0, seed=seed, dtype=torch.float64)
        told = epkit.predict_critical_limit(net, split[0], torch.eye(10)[split[1]], beta=0.1, iterations=4,
                                            learning_rate=rates, batch_size=8)  # fmt: skip
        np.testing.assert_allclose(found.limit_over_c.sel(network="small", seed=seed) * CONSTANT, told.by_layer)
    for module in (prediction, before):
        monkeypatch.setattr(module, "CONSTANT", 7 * CONSTANT)
    again = epkit.predicted({"small": SWEEP}, tmp_path / "again.nc")
    xr.testing.assert_allclose(again.limit_over_c, found.limit_over_c)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, r"beta = 0\.0: must be a finite number > 0"),
        ({"beta": 1e3}, "beta = 1000: must stay below the least total conductance"),
        ({"iterations": 0}, "iterations = 0: must be an integer >= 1"),
        ({"learning_rate": 0.0}, r"learning_rate = 0\.0: must be a number > 0, or 3 of them"),
        ({"learning_rate": [0.1]}, r"learning_rate = \[0\.1\]: must be a number > 0, or 3 of them"),
        ({"learning_rate": [0.1, -0.1, 0.1]}, "learning_rate = .*: must be a number > 0, or 3 of them"),
        ({"learning_rate": math.nan}, "learning_rate holds NaN or infinite values"),
        ({"learning_rate": "abc"}, "learning_rate = 'abc': must be a tensor or an array of numbers"),
        ({"batch_size": 33}, "batch_size = 33: must be an integer from 1 to 32"),
        ({"batch_size": 2.0}, r"batch_size = 2\.0: must be an integer from 1 to 32"),
        ({"samples": 0}, "samples = 0: must be an integer from 1 to 1000000000000"),
        ({"samples": 10**400}, "samples = 1000.*: must be an integer from 1 to 1000000000000"),
        ({"estimator": "both"}, "estimator = 'both': allowed are 'centered', 'positive', 'negative'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(digits, change, message):
    with pytest.raises(ValueError, match=message):
        predicted(digits, **change)
    if "samples" not in change:
        with pytest.raises(ValueError, match=message):
            needed(digits, **change)


def test_what_cannot_be_predicted_is_refused(digits):
    with pytest.raises(ValueError, match=r"sizes = \(64, 10\): a hidden layer is needed"):
        predicted(digits, network(sizes=(64, 10)))
    with pytest.raises(ValueError, match=r"t has the shape \(64, 9\): must be \(64, 10\), one-hot"):
        predicted((digits[0], digits[1][:, :9]))
    with pytest.raises(ValueError, match=r"x has the shape \(64, 63\)"):
        predicted((digits[0][:, 1:], digits[1]))
    dead = network(sizes=(64, 16, 10))
    dead.weights[1].zero_()
    with pytest.raises(ValueError, match=r"beta = .*the gradient before training vanishes|beta = .*least total"):
        predicted(digits, dead)
    with pytest.raises(ValueError, match="net is a DeepHopfieldNetwork: its constant c is of resistive networks"):
        predicted(digits, DeepHopfieldNetwork((64, 16, 10)))
    for change, message in (({"sigma": -1.0}, r"sigma = -1\.0: must be a finite number >= 0, at most 1e\+09"),
                            ({"sigma": 1e200}, r"sigma = 1e\+200: must be a finite number >= 0, at most 1e\+09"),
                            ({"margin": 0}, "margin = 0: must be a finite number > 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            needed(digits, **change)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({}, r"parameters: networks = \{\}: "),
        ({"a": {**SWEEP, "beta": -1.0}}, r"parameters: networks\.a\.beta = -1\.0: "),
        (
            {"a": {**SWEEP, "schedule": {"rule": "until"}}},
            r"networks\.a\.schedule\.images = None: is needed with a rule",
        ),
        ({"a": {**SWEEP, "beta": 1e3}}, "parameters: beta: smaller ones are allowed"),
        ({"a": {**SWEEP, "train_images": 8}}, "parameters: batch_size = 8: allowed are 1 to 4, half of the images"),
    ],
)
def test_sweeps_that_cannot_be_predicted_are_refused_and_nothing_is_written(tmp_path, networks, message):
    with pytest.raises(epkit.ParameterError, match=message) as refused:
        epkit.predicted(networks, tmp_path / "predicted.nc")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "predicted.nc").exists()
