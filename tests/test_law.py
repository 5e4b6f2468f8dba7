"""What notebook 11 asks of its stores, on synthetic ones whose answers are planted."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from synthetic import only_half_way, recorded, store

from epkit import figures, study
from epkit.study import law

NOTEBOOK = "11_what_sets_the_limit"


def network(
    limit, rate=0.02, batch=8, samples=1, beta=0.7, dataset="fashion_mnist", floor=0.05, span=(-1.5, 1), **facts
):
    """A sweep about its limit, of the same five seeds and no noise but theirs: limits scale exactly."""
    sigmas = (0.0, *(limit * np.logspace(*span, 9)))
    ds = store((dataset,), (rate,), samples=(samples,), sigmas=sigmas, limit=limit, exponent=0.0, floor=floor,
               spread=0.2, noise=0.0, epochs=2)  # fmt: skip
    ds["run"] = ds.diverged.astype(str) + f" {(limit, rate, batch, samples, beta, dataset, floor)}"
    facts |= {"dataset": [dataset], "learning_rate": [rate], "samples": [samples], "batch_size": batch, "beta": beta}
    return recorded(ds, **facts, sigma=list(sigmas))


def scaled(rate=0.02, batch=8, samples=1, beta=0.7, powers=(-0.5, 0.5, 0.5, 1.0), **facts):
    """A network whose limit goes as these powers of eta, B, N and beta."""
    relative = np.array([rate / 0.02, batch / 8, samples, beta / 0.7])
    limit = 1e-3 * float(np.prod(relative ** np.array(powers)))
    return network(facts.pop("factor", 1.0) * limit, rate, batch, samples, beta, **facts)


GRID = [{}, {"rate": 0.01}, {"rate": 0.005}, {"batch": 2}, {"batch": 32}, {"samples": 16}, {"beta": 0.2}, {"beta": 1.4}]


def family(grid=GRID, name="a", **facts):
    return {f"{name}-{k}": scaled(**each, **facts) for k, each in enumerate(grid)}


def predictions(stores, constant, factors=None):
    """What is predicted of each network before training: its limit over c, wrong by a factor."""
    limits = study.law_networks(stores).limit.values * (np.ones(len(stores)) if factors is None else factors)
    over_c = np.multiply.outer(limits / constant, np.outer([0.8, 1.0, 1.25], [7.0, 1.0, 3.0]))
    coords = {"network": list(stores), "seed": range(3), "layer": [1, 2, 3]}
    return xr.Dataset({"limit_over_c": (tuple(coords), over_c)}, coords)


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        only_half_way(patch)
        yield


@pytest.fixture(scope="module")
def exact():
    """Networks of the law's exact powers, and what is predicted of them with c = 0.05."""
    stores = family()
    return stores, study.law_networks(stores, predictions(stores, 0.05), 0.05)


def test_networks_are_set_side_by_side_only_where_they_differ_in_what_is_varied_alone():
    stores = family() | {"other": scaled(hidden=[64, 64]), "longer": scaled(rate=0.04, epochs=99, seeds=3)}
    assert law.alike(stores, ["batch_size"], 3) == {"a-0": ["a-0", "a-3", "a-4"]}
    assert law.alike(stores, ["beta"], 3) == {"a-0": ["a-0", "a-6", "a-7"]}
    assert law.alike(stores, ["learning_rate"], 4) == {"a-0": ["a-0", "a-1", "a-2", "longer"]}
    assert law.alike(stores, law.SCALED, 2) == {"a-0": [*(f"a-{k}" for k in range(6)), "longer"]}
    assert law.alike(stores, ["samples"], 3) == {}
    assert law.alike(stores, ["dataset"], 2) == {}


def test_the_limits_are_those_that_were_planted(exact):
    _, networks = exact
    relative = networks.limit / networks.limit.sel(network="a-0")
    expected = [1, 2**0.5, 2, 0.5, 2, 4, 0.2 / 0.7, 2]
    np.testing.assert_allclose(relative, expected, rtol=1e-3)
    np.testing.assert_allclose(networks.scale, (networks.batch_size * networks.samples / networks.learning_rate) ** 0.5)
    np.testing.assert_allclose(networks.prediction, networks.limit, rtol=1e-9)
    assert (networks.reason == "").all()
    assert networks.limits.dims == ("network", "definition", "seed")


def test_exponents_are_recovered_of_every_seed():
    powers = (-0.7, 0.3, 0.5, 0.9)
    stores = family(powers=powers)
    networks = study.law_networks(stores, predictions(stores, 1.0), 1.0)
    effects = study.law_effects(stores, networks)
    for name, power in zip(("learning_rate", "batch", "nudge"), (*powers[:2], powers[3]), strict=True):
        assert effects[name].values.shape == (1, 5)
        np.testing.assert_allclose(effects[name].values, power, atol=2e-3)
        assert effects[name].reason.values.tolist() == [""]
    assert "η = 0.005, 0.01, 0.02, B = 8, N = 1" in effects["learning_rate"].values.dataset.item()


def test_an_exact_law_collapses_and_another_does_not(exact):
    stores, networks = exact
    untrained = xr.Dataset({"response": (("network", "seed", "layer"), np.ones((8, 1, 2)))}, {"network": list(stores)})
    table = study.collapse_factors(stores, networks, untrained)
    np.testing.assert_allclose(table["noise scale"].iloc[0], 1, atol=2e-3)
    np.testing.assert_allclose(table["predicted"], 1, atol=1e-6)
    judged = np.log(networks.limit.values)
    assert table["alone"]["all networks"] == pytest.approx(np.exp(judged.std(ddof=1)))
    assert table.networks.tolist() == [6, 8]
    values = study.law_effects(stores, networks)["collapse"].values
    assert values.shape == (6, 5)
    np.testing.assert_allclose(values, 1, atol=3e-3)
    other = family(powers=(-1.0, 0.5, 0.5, 1.0))
    networks = study.law_networks(other, predictions(other, 1.0), 1.0)
    steeper = study.law_effects(other, networks)["collapse"].values.mean("seed").values
    excess = (np.array([0.02, 0.01, 0.005, 0.02, 0.02, 0.02]) / 0.02) ** -0.5
    np.testing.assert_allclose(sorted(steeper), sorted(excess / np.exp(np.log(excess).mean())), rtol=3e-3)


def test_data_sets_are_compared_seed_by_seed_at_equal_settings_by_every_definition(monkeypatch):
    monkeypatch.setattr(law, "registered_claims", study.registered_claims)
    stores = family(GRID[2:5]) | family(GRID[2:5], "b", dataset="kmnist_t10k_split", factor=1.5)
    networks = study.law_networks(stores, predictions(stores, 1.0), 1.0)
    effect = study.law_effects(stores, networks)["datasets"]
    assert effect.values.sizes == {"dataset": 3, "definition": 3, "seed": 5}
    np.testing.assert_allclose(effect.values, 1 / 1.5, rtol=1e-6)
    assert all(str(name).startswith("FashionMNIST / KMNIST") for name in effect.values.dataset.values)
    assert (effect.reason == "").all()


def test_the_share_of_predictions_within_a_factor_of_two(exact):
    stores, _ = exact
    factors = np.array([1, 1.9, 1 / 1.9, 2.1, 1 / 2.1, 1, 5, 1])
    networks = study.law_networks(stores, predictions(stores, 0.05, factors), 0.05)
    np.testing.assert_array_equal(law.within(networks), [1, 1, 1, 0, 0, 1, 0, 1])
    assert law.within(networks, 10.0).all()
    effect = study.law_effects(stores, networks)["prediction"]
    interval = effect.interval(effect.values)
    low, high = stats.binomtest(5, 8).proportion_ci(method="wilson")
    assert (interval["mean"].item(), interval.n.item()) == (5 / 8, 8)
    assert (interval.low.item(), interval.high.item()) == pytest.approx((low, high))
    of_one = networks.assign(prediction=networks.prediction / 0.05)
    constant, scatter, count = study.fitted_constant(of_one)
    assert count == 8
    assert constant == pytest.approx(0.05 / np.exp(np.log(factors).mean()))
    assert scatter == pytest.approx(np.exp(np.log(factors).std(ddof=1)))
    registered = study.registered_claims().later[NOTEBOOK].claims
    rows = study.family_rows(study.law_effects(stores, networks), registered)
    verdicts = study.verdict_table(rows, registered)
    assert verdicts.verdict[registered["prediction"].hypothesis] == "contradicted"
    assert verdicts.verdict[registered["nudge"].hypothesis] == "supported"
    assert verdicts.verdict[registered["datasets"].hypothesis] == "not testable"


def test_networks_that_cannot_be_judged_say_why_and_count_nowhere():
    stores = family()
    stores["a-0"] = scaled(floor=0.6)
    stores["a-5"] = scaled(samples=16, span=(-3, -1.5))
    networks = study.law_networks(stores, predictions(stores, 1.0), 1.0)
    assert networks.reason.sel(network="a-0") == "its lowest error is 67% of chance"
    assert networks.reason.sel(network="a-5") == "0 of 5 seeds have a limit"
    assert law.within(networks).sizes["network"] == 6
    assert study.fitted_constant(networks)[2] == 6
    effects = study.law_effects(stores, networks)
    assert effects["batch"].reason.values.tolist() == ["its lowest error is 67% of chance"]
    judged = effects["collapse"].values[effects["collapse"].reason.values == ""]
    np.testing.assert_allclose(np.log(judged).mean("dataset"), 0, atol=1e-12)
    np.testing.assert_allclose(judged, 1, atol=3e-3)
    reasons = effects["collapse"].reason.values.tolist()
    assert sorted(reasons) == ["", "", "", "", "0 of 5 seeds have a limit", "its lowest error is 67% of chance"]


def test_a_network_under_two_names_counts_once(exact):
    stores, networks = exact
    twice = stores | {"again": stores["a-0"]}
    found = study.law_networks(twice, predictions(stores, 0.05), 0.05)
    assert found.network.values.tolist() == networks.network.values.tolist()
    for name, effect in study.law_effects(twice, found).items():
        xr.testing.assert_equal(effect.values, study.law_effects(stores, networks)[name].values)


@pytest.mark.parametrize("rho", [0.0, 0.03, 0.3])
def test_correlated_reads_leave_what_the_figure_draws(exact, rho):
    """The mean of N reads v + sigma (sqrt(rho) z + sqrt(1 - rho) xi_k), many times over."""
    figure = figures.correlated_reads(*exact)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == f"ρ = {rho:g}")
    random = np.random.default_rng(4)
    for count in (1, 4, 64):
        shared, own = random.standard_normal((20_000, 1)), random.standard_normal((20_000, count))
        reads = rho**0.5 * shared + (1 - rho) ** 0.5 * own
        drawn = np.interp(np.log(count), np.log(line.get_xdata()), line.get_ydata())
        assert 1 / reads.mean(1).std() == pytest.approx(drawn, rel=0.02)
    (diamond,) = (line for line in figure.axes[0].lines if line.get_label().startswith("measured"))
    assert (diamond.get_xdata()[0], diamond.get_ydata()[0]) == pytest.approx((16, 4), rel=1e-3)
    plt.close("all")


def test_a_profile_without_these_notebooks_has_no_later_verdicts(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path))
    assert study.later_verdicts("study").empty
