"""What notebooks 11 to 13 ask of their stores, on synthetic ones whose answers are planted."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from synthetic import only_half_way, store

from epkit import figures, study
from epkit.study import arms, budget, law, switched_off
from epkit.study.families import effect_of
from epkit.study.intervals import share

NOTEBOOK = "11_what_sets_the_limit"


def recorded(ds, **facts):
    """With these among its parameters; None takes one out."""
    found = json.loads(ds.attrs["parameters"]) | facts
    return ds.assign_attrs(parameters=json.dumps({key: value for key, value in found.items() if value is not None}))


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


def errors(values, sigmas=(1e-4,), rates=(0.1,), dataset="mnist", **facts):
    """A store with these test errors after training, (learning_rate, sigma, seed)."""
    values = np.asarray(values, dtype=float)
    ds = store((dataset,), rates, sigmas=sigmas, seeds=values.shape[-1], epochs=2, noise=0.0)
    shape = (1, len(rates), 1, 1, len(sigmas), values.shape[-1])
    last = np.broadcast_to(values, shape[1:2] + shape[4:]).reshape(shape)
    ds["test_error"] = ds.test_error.where(ds.epoch < 2, xr.DataArray(last, dims=ds.test_error.dims[:-1]))
    return recorded(ds, learning_rate=list(rates), sigma=list(sigmas), **facts)


LUCK = np.array([0.0, 0.1, -0.05, 0.03])  # of the seeds
SIGMAS = (5e-5, 1e-4)


def arm_stores():
    """Noise of both sigmas gains 20 points; its parts, and other ways, so much of it."""
    quiet, noisy = 0.6 + LUCK, 0.4 + LUCK
    until, only = {"rule": "until", "images": 7000}, {"sigmas": SIGMAS}
    return {
        "none": errors(quiet, (0.0,)),
        "all": errors(noisy, SIGMAS),
        "reads-1": errors(noisy + 0.01, **only, schedule={"layers": [1]}),
        "reads-2": errors(quiet - 0.02, **only, schedule={"layers": [2]}),
        "first": errors(noisy - 0.03, **only, schedule=until),
        "still": errors(np.add.outer([0.5, 0.3], LUCK), (0.0, 1e-4), bias_rate=0.0),
        "raised": errors(quiet - 0.04, (0.0,), variant="raised"),
        "updates": errors(quiet - 0.05, **only, schedule={"updates": [1]}),
        "biases": errors(quiet - 0.06, **only, schedule={"updates": ["biases"]}),
        "leaky": errors(np.add.outer([0.6, 0.5, 0.45], LUCK), (0.0, *SIGMAS), variant="leaky"),
        "exponential": errors(np.add.outer([0.5, 0.44], LUCK[:3]), (0.0, 1e-4), variant="exponential"),
        "warm-1": errors(quiet - 0.3, (0.0,), warm_up=1750),
        "warm-2": errors(quiet - 0.1, (0.0,), warm_up=7000),
    }


def test_arms_are_named_by_what_their_stores_record():
    named = {name: arms.arm(ds) for name, ds in arm_stores().items()}
    assert named == {
        "none": "no noise", "all": "noise in all reads", "reads-1": "noise in the reads of layer 1",
        "reads-2": "noise in the reads of layer 2", "first": "noise until 7,000 images",
        "still": "biases that do not learn", "raised": "raised network", "updates": "noise in the update of W1",
        "biases": "noise in the update of the biases", "leaky": "leaky network", "exponential": "exponential network",
        "warm-1": "warm-up of 1,750 images", "warm-2": "warm-up of 7,000 images",
    }  # fmt: skip
    both = errors(LUCK, schedule={"layers": [2, 3], "rule": "after", "images": 9}, bias_rate=0.0)
    assert arms.arm(both) == "noise in the reads of layer 2, 3, after 9 images, biases that do not learn"


def test_differences_of_arms_are_paired_over_seeds():
    """The luck of the seeds drops out, to the last digit."""
    effects = arms.arm_effects(arm_stores())
    expected = {
        "layer_1": [-0.01] * 2, "other_layers": [0.02] * 2, "updates": [0.05] * 2 + [0.06] * 2, "still_biases": [0.1],
        "larger": [0.04], "unclamped": [0.06], "leaky": [0.1, 0.15], "early": [0.03] * 2, "warm_up": [-0.1],
    }  # fmt: skip
    assert set(effects) == set(expected) == set(study.registered_claims().later["12_why_noise_helps"].claims)
    for name, (values, reason, _) in effects.items():
        assert (reason == "").all(), name
        np.testing.assert_allclose(values.mean("seed"), expected[name], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(values.std("seed"), 0, atol=1e-12, err_msg=name)
    labels = effects["layer_1"].values.dataset.values.tolist()
    assert labels == [f"MNIST, noise in the reads of layer 1, η = 0.1, σ = {s} V" for s in ("5e-05", "0.0001")]
    assert effects["still_biases"].values.dataset.item() == "MNIST, biases that do not learn, η = 0.1"


def test_arms_with_fewer_seeds_are_compared_on_those_alone():
    effect = arms.arm_effects(arm_stores() | {"updates": errors(0.5 + LUCK[:2], schedule={"updates": [1]})})["updates"]
    of_w1 = effect.values.sel(dataset=[name for name in effect.values.dataset.values if "W1" in name])
    np.testing.assert_allclose(of_w1.dropna("seed"), 0.1)
    assert of_w1.count() == 2
    few = arms.arm_effects(arm_stores() | {"updates": errors(0.5 + LUCK[:1], schedule={"updates": [1]})})["updates"]
    reasons = dict(zip(few.values.dataset.values.tolist(), few.reason.values.tolist(), strict=True))
    assert [reason for name, reason in reasons.items() if "W1" in name] == ["1 of 1 seeds have it"]


def test_missing_arms_are_not_testable():
    effects = arms.arm_effects({"none": arm_stores()["none"]})
    for name, (values, reason, _) in effects.items():
        assert reason.values.tolist() == ["no such setting"], name
        assert values.isnull().all()


def test_the_warm_up_of_each_seed_is_the_choice_of_the_others():
    random = np.random.default_rng(3)
    warm, noisy = random.uniform(0.2, 0.8, (3, 6)), random.uniform(0.2, 0.8, (2, 6))
    stores = {f"warm-{k}": errors(values, (0.0,), warm_up=1000 * (k + 1)) for k, values in enumerate(warm)}
    found = arms.arm_effects(stores | {"all": errors(noisy[None], SIGMAS)})["warm_up"]
    expected = []
    for seed in range(6):
        others = [k for k in range(6) if k != seed]
        best = [values[values[:, others].mean(1).argmin(), seed] for values in (warm, noisy)]
        expected.append(best[0] - best[1])
    np.testing.assert_allclose(found.values[0], expected)
    cheating = warm.min(0) - noisy.min(0)
    assert not np.allclose(expected, cheating)


def test_the_table_of_arms_says_what_the_stores_hold():
    table = arms.arm_table({name: arm_stores()[name] for name in ("none", "still")}).set_index(["arm", "σ (V)"])
    assert table["n"].tolist() == [4, 4, 4]
    assert table["error (%)"]["no noise", "0"].startswith("62.0 [")
    assert table["error (%)"]["biases that do not learn", "0.0001"].startswith("32.0 [")
    assert table["stuck (%)"]["no noise", "0"].startswith("0 [")


IMAGES = 1000


def curve(epochs_until, counts, rates=(0.02,), sigmas=(1e-3,), seeds=3, reads=None, epochs=10, **facts):
    """A store whose error falls from 0.5 to 0.1 in the record of the given epoch, of each rate and N."""
    ds = store(("mnist",), rates, samples=counts, sigmas=sigmas, seeds=seeds, epochs=epochs, noise=0.0)
    until = xr.DataArray(np.broadcast_to(epochs_until, (len(rates), len(counts))), dims=("learning_rate", "samples"))
    ds["test_error"] = xr.where(ds.epoch >= until, 0.1, 0.5).broadcast_like(ds.test_error).transpose(
        *ds.test_error.dims
    )  # fmt: skip
    if reads is not None:
        ds["reads"] = ds.test_error * 0 + xr.DataArray(reads, dims="epoch")
    return recorded(ds, train_images=IMAGES, sigma=list(sigmas), samples=list(counts), **facts)


QUIET = {"quiet": curve(1, (1,), sigmas=(0.0,))}


def test_a_constant_number_of_reads_costs_that_many_an_image():
    ds = curve([[3, 5]], (4, 64))
    costs = budget.costs(ds).squeeze()
    for count in (4, 64):
        np.testing.assert_array_equal(costs.sel(samples=count, seed=0), count * IMAGES * np.arange(1, 11))
    until = budget.reads_until(ds, 0.2).squeeze()
    np.testing.assert_array_equal(until.sel(seed=0), [4 * 3 * IMAGES, 64 * 5 * IMAGES])
    assert budget.reads_until(ds, 0.05).isnull().all()
    grown = np.arange(1.0, 11)
    ds = curve(4, (4,), reads=grown, schedule={"rule": "growing", "images": 1000})
    np.testing.assert_array_equal(budget.costs(ds).squeeze().sel(seed=0), IMAGES * grown.cumsum())
    assert budget.reads_until(ds, 0.2).squeeze()[0] == IMAGES * 10
    looked = curve(4, (4,)).assign_coords(epoch=np.arange(1, 11) / 2)
    np.testing.assert_array_equal(budget.costs(looked).squeeze()[0], 4 * IMAGES * np.arange(1, 11) / 2)


def test_runs_that_are_missing_cost_nothing_that_is_known():
    ds = curve(3, (4,))
    ds["test_error"] = ds.test_error.where(ds.seed != 1)
    costs = budget.costs(ds).squeeze()
    assert costs.sel(seed=1).isnull().all()
    assert budget.reads_until(ds, 0.2).isnull().sum() == 1
    assert budget.budget_table(QUIET | {"one": ds})["reads in all"].iloc[1] == "4e+04"


def test_labels_say_how_reads_follow_training():
    assert budget.label(QUIET["quiet"]) == "no noise"
    assert budget.label(curve(1, (4,))) == "constant N"
    assert budget.label(curve(1, (4,), decay=0.75)) == "constant N, rates x0.75 an epoch"
    assert budget.label(curve(1, (4,), schedule={"rule": "adaptive", "images": 9, "bound": 2.0})) == (
        "adaptive N, bound 2"
    )


def test_the_target_is_the_error_without_noise_and_two_points():
    quiet = curve([[1], [10]], (1,), rates=(0.005, 0.02), sigmas=(0.0,))
    quiet["test_error"] = quiet.test_error + 0.1 * (quiet.learning_rate == 0.02)
    assert budget.targets({"quiet": quiet, "noisy": curve(1, (4,))}) == pytest.approx({"MNIST": 0.2 + budget.ABOVE})


def test_savings_are_those_over_the_best_constant():
    """3 epochs at N = 16 are the cheapest; N = 4 never arrives, and a schedule that arrives takes an eighth."""
    reads = np.where(np.arange(10) < 6, 1.0, 64.0)
    stores = QUIET | {
        "constant": curve([[99, 3, 2], [99, 9, 4]], (4, 16, 64), rates=(0.02, 0.05)),
        "growing": curve(6, (1,), reads=reads, schedule={"rule": "growing", "images": 9}),
        "never": curve(99, (1,), schedule={"rule": "doubling", "images": 9}),
    }
    best = budget.best_constants(stores)["MNIST"]
    assert (best.samples, best.learning_rate) == (16, 0.02)
    np.testing.assert_array_equal(best, 48 * IMAGES)
    values, reason, interval = budget.budget_effects(stores)["saving"]
    assert values.dataset.values.tolist() == [
        "MNIST, growing N, N = 1 at first, η = 0.02", "MNIST, doubling N, N = 1 at first, η = 0.02"
    ]  # fmt: skip
    assert reason.values.tolist() == ["", "0 of 3 seeds have it"]
    np.testing.assert_allclose(interval(values)["mean"][0], 8)
    table = budget.budget_table(stores)
    assert table["arrived"].tolist()[1:4] == ["0 of 3", "3 of 3", "3 of 3"]
    assert table["reads until the target"].tolist()[1] == "never"


def test_one_seed_that_never_arrives_leaves_a_saving_untestable():
    late = curve(6, (1,), reads=np.ones(10), schedule={"rule": "growing", "images": 9})
    late["test_error"] = late.test_error.where(late.seed != 2, 0.5)
    effect = budget.budget_effects(QUIET | {"constant": curve(3, (16,)), "growing": late})["saving"]
    assert effect.reason.values.tolist() == ["2 of 3 seeds have it"]
    lame = curve([[3, 2]], (16, 64))
    lame["test_error"] = lame.test_error.where((lame.seed != 2) | (lame.samples != 16), 0.5)
    assert budget.best_constants(QUIET | {"constant": lame})["MNIST"].samples == 64


@pytest.mark.parametrize("factor", [1, 2])
def test_reads_that_depend_on_n_over_eta_alone_are_invariant(factor):
    """(4 N, 4 eta) in a quarter of the images, or in half."""
    stores = QUIET | {"constant": curve([[8, 8], [1, 2 * factor]], (16, 64), rates=(0.005, 0.02))}
    values, reason, interval = budget.budget_effects(stores)["invariance"]
    assert values.dataset.values.tolist() == ["MNIST, N = 16, η = 0.005, against four times both"]
    assert reason.item() == ""
    assert interval(values)["mean"].item() == pytest.approx(factor)


def test_effects_of_settings_are_testable_with_two_seeds_or_all():
    def seeds(*values):
        return xr.DataArray(np.array(values, dtype=float), {"seed": range(len(values))}, "seed")

    settings = {"a": seeds(1, 2, 3), "b": seeds(1, np.nan, 3), "c": seeds(np.nan, np.nan, 3), "d": seeds(1, 2)}
    loose, strict = (effect_of(settings.items(), complete=complete) for complete in (False, True))
    assert loose.reason.values.tolist() == ["", "", "1 of 3 seeds have it", ""]
    assert strict.reason.values.tolist() == ["", "2 of 3 seeds have it", "1 of 3 seeds have it", ""]
    assert loose.values.sizes == {"dataset": 4, "seed": 3}
    np.testing.assert_array_equal(loose.values.sel(dataset="b"), [1, np.nan, 3])
    nothing = effect_of([])
    assert nothing.reason.values.tolist() == ["no such setting"]


def test_a_share_has_wilsons_interval():
    outcomes = xr.DataArray([[1, 1, 0, np.nan], [0, 0, 0, 0], [np.nan] * 4], dims=("setting", "seed"))
    found = share(outcomes, level=0.9)
    np.testing.assert_array_equal(found.n, [3, 4, 0])
    np.testing.assert_allclose(found["mean"], [2 / 3, 0, np.nan])
    z = stats.norm.ppf(0.95)
    for k, (p, n) in enumerate(((2 / 3, 3), (0.0, 4))):
        middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        bounds = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
        np.testing.assert_allclose([found.low[k], found.high[k]], bounds, atol=1e-12)
    assert np.isnan(found.low[2])


def test_noise_that_ends_is_compared_with_longer_training_that_is_else_the_same():
    gone = {"rule": "until", "images": 2000}
    short = curve(2, (1,), sigmas=(5e-5,), epochs=4, schedule=gone)
    short["test_error"] = short.test_error - xr.DataArray([0.02, 0.03, 0.04], dims="seed")
    earlier = {
        "long": curve(6, (1,), sigmas=(0.0, 5e-5), epochs=8),
        "longer": recorded(curve(3, (1,), sigmas=(0.0, 5e-5), epochs=9), batch_size=4),  # another training
        "first": curve(1, (1,), sigmas=(0.0, 5e-5), epochs=4),
    }
    curves = switched_off.published_arms(earlier, {"short": short, "quiet": QUIET["quiet"]})
    (error,) = curves.values()
    assert error.arm.values.tolist() == ["no noise", "noise throughout", "noise in the first 2,000 images"]
    assert error.images.values.tolist() == [1000, 2000, 3000, 4000]
    saved = switched_off.published_effects(curves)["off_beats_none"].values.squeeze()
    np.testing.assert_allclose(saved, [0.42, 0.43, 0.44])  # of 0.5, which the long training has not left
    table = switched_off.published_table(curves)
    assert table.iloc[-1, 0] == "43 [40.5, 45.5], n = 3"  # points
    assert table.columns.tolist() == [(table.columns[0][0], "no noise"), (table.columns[0][0], "noise throughout")]
    nothing = switched_off.published_effects(switched_off.published_arms({}, {"short": short}))
    assert nothing["off_beats_noise"].reason.item() == "no such setting"
    assert set(budget.counted({"short": short, "never": curve(1, (1,), reads=[np.inf] * 10)})) == {"short"}


def test_a_profile_without_these_notebooks_has_no_later_verdicts(tmp_path, monkeypatch):
    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path))
    assert study.later_verdicts("study").empty
