"""Known answers: what is planted in a synthetic store must be found, and what is not there must not."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CHANCE, SIGMAS, store

from epkit import analysis, benefit, claims
from epkit.parameters import ParameterError

FEW = settings(max_examples=15, deadline=None)


def limits_of(ds):
    return analysis.critical_limit(analysis.final_error(ds), ds.chance)


def flat(values):
    """An error (sigma, seed) with these values at every sigma: (sigma,) or (sigma, seed)."""
    values = np.asarray(values, dtype=float)
    values = values if values.ndim == 2 else np.repeat(values[:, None], 4, axis=1)
    coords = {"sigma": np.array(SIGMAS), "seed": np.arange(values.shape[1])}
    return xr.DataArray(values, dims=("sigma", "seed"), coords=coords)


# --- the limit


@pytest.mark.parametrize("planted", [3e-5, 2e-4, 1e-3])
@pytest.mark.parametrize("width", [0.1, 0.3, 0.6])
def test_limit_is_recovered(planted, width):
    found = limits_of(store(limit=planted, spread=0, width=width, noise=0.002)).squeeze()
    # a turn narrower than the grid (0.77 in log sigma) is located less well than a wide one
    assert abs(math.log(float(found["mean"]) / planted)) < 0.15
    assert found.bracketed.all()
    assert set(found.method.values) == {"logistic"}
    assert int(found.n) == int(found.runs) == 5


def test_limit_survives_a_benefit_of_noise():
    """The falling side left of the optimum must not enter the fit."""
    found = limits_of(store(benefit=0.6, spread=0, noise=0.002)).squeeze()
    assert float(found["mean"]) == pytest.approx(2e-4, rel=0.1)


def test_interval_covers_the_planted_limit():
    errors = [analysis.final_error(store(spread=0.3, noise=0.01, rng=rng)).squeeze(drop=True) for rng in range(60)]
    found = analysis.critical_limit(xr.concat(errors, "repeat"), CHANCE["mnist"])
    covered = ((found.low < 2e-4) & (found.high > 2e-4)).mean()
    assert 0.85 <= covered <= 1


def test_no_limit_is_claimed_where_none_is():
    low = flat(np.linspace(0.05, 0.1, 14))
    plateau = flat(np.interp(np.arange(14), [0, 7, 10], [0.03, 0.03, 0.33]))  # one hidden layer
    chance = flat(np.full(14, 0.9))
    for error, reason in ((low, "below half way"), (plateau, "below half way"), (chance, "never learns")):
        found = analysis.critical_limit(error, 0.9)
        assert not found.bracketed.any()
        assert np.isnan(found["mean"])
        assert int(found.n) == 0
        assert all(text.startswith(reason) for text in found.reason.values)


def test_limit_is_censored_seed_by_seed():
    turn = flat(np.where(np.arange(14) < 9, 0.05, 0.9)).values
    turn[:, 1] = 0.9  # this seed never learns
    turn[:, 2] = 0.05  # this one has its limit above the sweep
    found = analysis.critical_limit(flat(turn), 0.9)
    assert found.bracketed.values.tolist() == [True, False, False, True]
    assert found.reason.values[1] == "above half way from the optimum on"
    assert found.reason.values[2].startswith("below half way even")
    assert SIGMAS[8] < found["mean"] < SIGMAS[9]
    assert int(found.n) == 2
    assert int(found.runs) == 4


def test_few_sigmas_are_interpolated_not_fitted():
    error = flat(np.where(np.arange(14) < 9, 0.05, 0.9)).sel(sigma=[SIGMAS[7], SIGMAS[8], SIGMAS[9]])
    found = analysis.critical_limit(error, 0.95)
    assert set(found.method.values) == {"interpolation"}
    assert SIGMAS[8] < found["mean"] < SIGMAS[9]


def test_one_seed_gives_a_limit_without_interval():
    found = limits_of(store(seeds=1)).squeeze()
    assert np.isfinite(found["mean"])
    assert np.isnan(found.low)
    assert np.isnan(found.high)


@FEW
@given(order=st.permutations(range(5)))
def test_order_of_seeds_and_sigmas_does_not_matter(order):
    ds = store(spread=0.3, rates=(0.02, 0.1), benefit=0.1, looks=True)
    shuffled = ds.isel(seed=list(order), sigma=np.random.default_rng(order).permutation(14))
    for function in (
        limits_of,
        lambda ds: benefit.optimum(analysis.final_error(ds), analysis.choice_error(ds)),
        lambda ds: benefit.beyond_tuning(analysis.final_error(ds), analysis.choice_error(ds)),
    ):
        a, b = function(ds), function(shuffled).reindex(seed=ds.seed)
        xr.testing.assert_allclose(a.drop_vars(["method", "reason"], errors="ignore"),
                                   b.drop_vars(["method", "reason"], errors="ignore"), rtol=1e-6)  # fmt: skip


@FEW
@given(factor=st.floats(1e-3, 1e3))
def test_limit_scales_with_the_unit_of_sigma(factor):
    ds = store(spread=0.3)
    scaled = limits_of(ds.assign_coords(sigma=ds.sigma * factor))
    np.testing.assert_allclose(scaled.limit, limits_of(ds).limit * factor, rtol=1e-4)


# --- errors, shares


def test_diverged_is_chance_and_not_run_stays_nan():
    ds = store()
    ds["test_error"] = ds.test_error.where((ds.seed != 0) & (ds.seed != 1))
    ds["diverged"] = ds.diverged | (ds.seed == 0)
    error = analysis.final_error(ds)
    assert (error.sel(seed=0) == CHANCE["mnist"]).all()
    assert error.sel(seed=1).isnull().all()
    assert int(limits_of(ds.sel(seed=[1, 2, 3, 4])).runs.squeeze()) == 3
    assert limits_of(ds).reason.sel(seed=1).item() == "not run"
    last = analysis.final_error(store(epochs=6), last=3)
    np.testing.assert_allclose(last, store(epochs=6).test_error.isel(epoch=slice(3, 6)).mean("epoch"))


def test_bootstrap_interval():
    values = xr.DataArray(np.random.default_rng(0).normal(size=(3, 40)), dims=("cell", "seed"))
    found = analysis.mean_interval(values)
    exact = analysis.t_interval(values)
    np.testing.assert_allclose(found.low, exact.low, atol=0.08)
    np.testing.assert_allclose(found.high, exact.high, atol=0.08)
    backwards = analysis.mean_interval(values[:, ::-1])
    xr.testing.assert_identical(found[["low", "high"]], backwards[["low", "high"]])
    equal = analysis.mean_interval(xr.full_like(values, 0.9))
    assert (equal.low == equal.high).all()
    assert np.allclose(equal.low, 0.9)
    alone = analysis.mean_interval(values[:, :1])
    assert alone.low.isnull().all()
    assert (alone.n == 1).all()
    assert alone["mean"].notnull().all()


def test_share_of_runs_that_learn():
    error = flat(np.full((14, 10), 0.05))
    error[-1, :3] = 0.9
    found = analysis.learning_share(error, 0.9)
    assert found["mean"].values[[0, -1]].tolist() == [1, 0.7]
    # Wilson for 7 of 10, by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert float(found.low[-1]) == pytest.approx(0.3968, abs=1e-3)
    assert float(found.high[-1]) == pytest.approx(0.8922, abs=1e-3)
    assert (analysis.learning_share(flat(np.full(14, 0.9)), 0.9)["mean"] == 0).all()


# --- scaling, ratios, optimum


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5])
def test_scaling_exponent(exponent):
    samples = xr.DataArray([1, 4, 16, 64], dims="samples", coords={"samples": [1, 4, 16, 64]})
    limits = 2e-4 * samples**exponent * xr.DataArray([1.0, 1.3, 0.8], dims="seed", coords={"seed": [0, 1, 2]})
    found = analysis.scaling_exponent(limits)
    np.testing.assert_allclose(found.slope, exponent, atol=1e-12)
    limits[1, 0] = limits[1:3, 1] = np.nan  # three N are enough, two are not
    found = analysis.scaling_exponent(limits)
    assert found.slope.notnull().values.tolist() == [True, False, True]
    assert int(found.n) == 2
    assert float(found["mean"]) == pytest.approx(exponent)


def test_scaling_through_the_whole_chain():
    ds = store(samples=(1, 4, 16), averaging=("explicit", "shortcut"), seeds=4)
    table = claims.claim_scaling(ds)
    slopes, distances = table[:2], table[2:]
    assert slopes.setting.tolist() == distances.setting.tolist() == ["primary", "secondary"]  # explicit, shortcut
    assert set(slopes.verdict) <= {"supported", "contradicted"}
    assert np.allclose(slopes.value, 0.5, atol=0.02)
    apart = claims.claim_scaling(store(samples=(1, 4, 16), exponent=0.2, sigmas=(0, *(1e-5 * 2.0 ** np.arange(10)))))
    assert apart.verdict.tolist() == ["contradicted", "contradicted"]


def test_ratio_is_paired():
    limits = limits_of(store(spread=0.8)).limit.squeeze()
    found = analysis.limit_ratio(limits * 3, limits)
    assert [float(found[name]) for name in ("mean", "low", "high")] == pytest.approx([3, 3, 3])


def test_benefit_is_recovered_and_not_flattered():
    planted = benefit.optimum(analysis.final_error(store(benefit=0.3))).squeeze()
    assert float(planted["mean"]) == pytest.approx(0.3, abs=0.01)
    assert float(planted.low) > 0.28
    assert 1e-5 < planted.sigma_star < 1e-4
    noise = np.random.default_rng(1).normal(0.2, 0.05, size=(400, 14, 4))
    error = xr.concat([flat(each) for each in noise], "repeat")
    honest = benefit.optimum(error)["mean"]
    naive = error.mean("seed").isel(sigma=0) - error.mean("seed").isel(sigma=slice(1, None)).min("sigma")
    assert abs(float(honest.mean())) < 0.005 < 0.03 < float(naive.mean())
    with pytest.raises(ValueError, match="sigma = 0"):
        benefit.optimum(flat(np.full(14, 0.1)).isel(sigma=slice(1, None)))
    assert np.isnan(benefit.optimum(flat(np.full((14, 1), 0.1)))["mean"])


def test_noise_that_only_repairs_a_bad_learning_rate_adds_nothing_to_tuning():
    """The plane is pure noise around an error that depends on the learning rate alone."""
    rate = xr.DataArray([0.0, 0.3], {"learning_rate": [0.02, 0.1]}, "learning_rate")
    noise = np.random.default_rng(2).normal(0.2, 0.05, size=(300, 14, 6))
    error = xr.concat([flat(each) for each in noise], "repeat") + rate
    found = benefit.beyond_tuning(error)
    naive = error.mean("seed").isel(sigma=0).min("learning_rate") - error.mean("seed").isel(sigma=slice(1, None)).min(
        ["learning_rate", "sigma"]
    )
    assert abs(float(found["mean"].mean())) < 0.005 < 0.02 < float(naive.mean())
    assert (found.rate_noiseless == 0.02).all()
    assert (found.rate_noisy == 0.02).all()
    covered = ((found.low < 0) & (found.high > 0)).mean()
    assert 0.85 <= covered <= 1


def test_the_choice_is_made_on_other_images_and_other_seeds():
    """By hand: σ = 1 is best for seeds 1 and 2 together, σ = 2 for 0 and 2, and for 0 and 1."""
    coords = {"sigma": [0.0, 1.0, 2.0], "seed": [0, 1, 2]}
    validation = xr.DataArray([[0.0, 0.0, 0.0], [0.9, 0.1, 0.2], [0.3, 0.4, 0.4]], coords, ("sigma", "seed"))
    test = xr.DataArray([[0.5, 0.5, 0.5], [0.1, 0.2, 0.3], [0.4, 0.45, 0.35]], coords, ("sigma", "seed"))
    found = benefit.optimum(test, validation)
    np.testing.assert_allclose(found.at_star, [0.1, 0.45, 0.35])
    np.testing.assert_allclose(found.benefit, [0.4, 0.05, 0.15])
    assert float(found["mean"]) == pytest.approx(0.2)
    assert float(found.sigma_star) == 2  # 0 is not a noise, although it is best here
    tuned = benefit.beyond_tuning(test.expand_dims(learning_rate=[0.1]), validation.expand_dims(learning_rate=[0.1]))
    np.testing.assert_allclose(tuned.difference, found.benefit)
    assert (float(tuned.rate_noisy), float(tuned.sigma_noisy)) == (0.1, 2)


@FEW
@given(shift=st.floats(0, 0.2), order=st.permutations(range(6)))
def test_a_common_shift_changes_no_benefit_and_seeds_have_no_rank(shift, order):
    values = np.random.default_rng(3).choice(np.arange(0.1, 0.6, 0.05), size=(14, 6))  # with ties
    found = benefit.optimum(flat(values))
    relabelled = benefit.optimum(flat(values[:, list(order)] + shift))
    np.testing.assert_allclose(np.sort(relabelled.benefit), np.sort(found.benefit), atol=1e-12)
    assert relabelled.sigma_star == found.sigma_star


def test_a_runs_first_passage_and_the_value_at_its_limit():
    error = xr.DataArray([[0.9, 0.4, 0.6], [0.9, 0.8, 0.7]], {"seed": [0, 1], "epoch": [1, 2, 3]}, ("seed", "epoch"))
    assert analysis.epochs_until(error, 0.5).values.tolist() == [2, np.inf]
    positive = np.array(SIGMAS[1:])
    falling = 1e-4 / xr.DataArray(positive, {"sigma": positive}, "sigma")
    limit = xr.DataArray([5e-5, np.nan], dims="seed")
    found = analysis.at_limit(falling, limit)
    assert float(found[0]) == pytest.approx(2)
    assert np.isnan(found[1])


def test_optimum_over_limit():
    ds = store(benefit=0.3, noise=0.0, floor=0.05, width=0.2)
    error = analysis.final_error(ds)
    limit = limits_of(ds).limit
    found = benefit.star_over_limit(error, limit).squeeze()
    star = float(error.mean("seed").idxmin("sigma").squeeze())
    geometric = math.exp(float(np.log(limit).mean()))
    assert float(found["mean"]) == pytest.approx(star / geometric)
    assert found.low <= found["mean"] <= found.high
    assert int(found.n) == 5
    one = benefit.star_over_limit(error.isel(seed=[0]), limit.isel(seed=[0])).squeeze()
    assert np.isfinite(one["mean"])
    assert np.isnan(one.low)


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.45, 0.55, "supported"),
        (0.3, 0.7, "undecided"),
        (0.51, 0.55, "contradicted"),
        (math.nan, 1, "undecided"),
    ],
)
def test_verdict_on_a_point(low, high, expected):
    assert claims.verdict(low, high, inside=(0.4, 0.6), contains=0.5) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.6, 1.9, "supported"), (0.4, 1.0, "undecided"), (2.1, 3.0, "contradicted")],
)
def test_verdict_on_equivalence(low, high, expected):
    assert claims.equivalent(low, high, factor=2) == expected


def test_claims_are_judged_from_the_store():
    names = ("mnist", "kmnist_t10k_split", "fashion_mnist")
    ds = store(datasets=names, rates=(0.02, 0.1), benefit=0.3)
    names = ("limit", "datasets", "benefit", "optimum", "beyond_tuning")
    tables = [getattr(claims, f"claim_{name}")(ds) for name in names]
    for table in tables:
        assert list(table.columns) == claims.FIXED_COLUMNS
        assert table.n.min() == 5
        assert table.measure.str.contains("4,000 steps").all()
    assert all(table.measure.str.contains("η = 0.").all() for table in tables[:4])
    assert [len(table) for table in tables] == [6, 7, 6, 6, 3]
    assert [(table.setting == "primary").sum() for table in tables] == [1, 4, 3, 3, 3]
    assert all(table.setting.iloc[0] == "primary" for table in tables)
    assert all(set(table.verdict) == {"supported"} for table in tables)
    far = store(limit=1e-3, datasets=("fashion_mnist",))
    apart = xr.concat([store(), far], "dataset", data_vars="all", join="exact")
    judged = claims.claim_datasets(apart)
    assert set(judged.verdict) == {"contradicted"}
    assert judged.value.iloc[0] == pytest.approx(0.2, rel=0.1)
    assert claims.claim_datasets(store()).verdict.tolist() == ["undecided"]
    assert claims.claim_limit(store(seeds=1)).verdict.tolist() == ["undecided"]
    assert claims.claim_limit(store(limit=1.0)).verdict.tolist() == ["undecided"]
    assert claims.claim_limit(store(limit=1e-9, sigmas=SIGMAS[1:])).verdict.tolist() == ["contradicted"]
    assert claims.claim_benefit(store(benefit=-0.04)).verdict.tolist() != ["supported"]


def test_all_pairs_are_judged_at_the_primary_setting():
    """A pair apart at another learning rate does not decide."""
    near = store(datasets=("mnist", "fashion_mnist"), rates=(0.02,))
    far = store(datasets=("mnist",), rates=(0.1,)), store(datasets=("fashion_mnist",), rates=(0.1,), limit=1e-3)
    ds = xr.concat([near, xr.concat(far, "dataset", data_vars="all")], "learning_rate", data_vars="all")
    ds["chance"], ds["title"] = near.chance, near.title
    table = claims.claim_datasets(ds)
    assert table.verdict.tolist() == ["supported", "contradicted", "supported"]
    assert table.setting.tolist() == ["primary", "secondary", "primary"]


def test_one_more_data_set_is_judged_in_units_of_its_response():
    ds, check = store(looks=True), store(datasets=("fashion_mnist",), limit=2e-3, looks=True)
    check.attrs["parameters"] = check.attrs["parameters"].replace("mnist", "fashion_mnist")
    check["response"] = 10 * check.response
    table = claims.claim_check(ds, check)
    assert table.verdict.tolist() == ["supported"]
    assert table.value.iloc[0] == pytest.approx(1, abs=0.1)
    in_volts = claims.claim_check(ds, check.drop_vars("response"))
    assert in_volts.verdict.tolist() == ["undecided"]
    assert in_volts.value.iloc[0] == pytest.approx(10, rel=0.1)


def test_where_reported_accuracies_appear():
    found = claims.reported(store(datasets=("mnist", "kmnist_t10k_split"), floor=0.03, benefit=0.2))
    assert found.index.tolist() == ["KMNIST (t10k split): 77% without noise", "KMNIST (t10k split): 97% at its best σ"]
    assert found["runs like that (test)"].gt(0).all()
    assert found["at (test)"].str.contains("η = 0.02, σ = 0").tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factor: 2.0", "datasets.factr: no such parameter"),
        ("within: 10.0", "limit.within = 0.5: Input should be greater than 1"),
        ("inside: [0.4, 0.6]", "scaling.inside = [0.6, 0.4]: a range is [low, high]"),
    ],
)
def test_a_fault_in_the_fixed_claims_is_named(tmp_path, monkeypatch, text, message):
    wrong = {"factor: 2.0": "factr: 2.0", "within: 10.0": "within: 0.5", "inside: [0.4, 0.6]": "inside: [0.6, 0.4]"}
    path = tmp_path / "claims.yaml"
    path.write_text(claims.FIXED.read_text(encoding="utf-8").replace(text, wrong[text]), encoding="utf-8")
    monkeypatch.setattr(claims, "FIXED", path)
    claims.fixed.cache_clear()
    with pytest.raises(ParameterError) as caught:
        claims.fixed()
    claims.fixed.cache_clear()
    assert "params/claims.yaml: " + message in str(caught.value)


def test_settings_that_were_not_run_have_no_row():
    ds = store(datasets=("mnist", "fashion_mnist"), rates=(0.02, 0.1))
    ds["test_error"] = ds.test_error.where((ds.dataset == "mnist") | (ds.learning_rate < 0.05))
    assert len(claims.claim_limit(ds)) == 3
    assert len(claims.claim_datasets(ds)) == 2  # one pair and the summary


def test_curves_that_depend_on_sigma_over_root_n_collapse():
    sigmas = (0.0, *(1e-5 * 2.0 ** np.arange(10)))
    ds = store(sigmas=sigmas, samples=(1, 4, 16), noise=0.002)
    found = analysis.collapse(analysis.final_error(ds)).squeeze(drop=True)
    assert found.samples.values.tolist() == [4, 16]
    assert found.points.values.tolist() == [9, 8]
    assert (abs(found["mean"]) < 0.003).all()
    apart = analysis.collapse(analysis.final_error(store(sigmas=sigmas, samples=(1, 4), exponent=0.2))).squeeze(
        drop=True
    )
    assert float(apart.low) > 0.05
    assert (found.distance < 0.003).all()
    assert float(apart.distance) > 0.05
    with pytest.raises(ValueError, match="single read-out"):
        analysis.collapse(analysis.final_error(store(sigmas=sigmas, samples=(4, 16))))


def test_the_floor_of_a_distance_is_what_other_seeds_make():
    """Two sets of seeds drawn alike: their curves lie as far apart as the floor, found from one set, says."""
    sigma = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    measured, floors = [], []
    for rng in range(40):
        values = np.random.default_rng(rng).normal(0.3, 0.1, size=(2, 5, 10))
        coords = {"samples": [1, 4], "sigma": sigma, "seed": np.arange(10)}
        found = analysis.curve_distance(xr.DataArray(values, coords, ("samples", "sigma", "seed")))
        measured.append(float(found["mean"]))
        floors.append(float(found.floor))
        assert found.low <= found.high
    assert np.mean(floors) == pytest.approx(np.mean(measured), rel=0.1)
    alike = (
        xr.DataArray(values, coords, ("samples", "sigma", "seed")).isel(samples=[0, 0]).assign_coords(samples=[1, 4])
    )
    shifted = alike.copy(data=np.stack([alike[0], np.roll(alike[0], 1, axis=0)]))  # error(4, 2σ) = error(1, σ)
    assert float(analysis.curve_distance(shifted)["mean"]) == 0


def test_published_errors_are_judged_only_after_all_epochs_and_over_seeds():
    one = {"net": store(sigmas=(0.0, 1e-9), floor=0.035, noise=1e-4, spread=0).isel(sigma=[0])}

    def judged(error, epochs=4):
        return claims.claim_published(one, {"net": error}, {"net": epochs}).verdict.item()

    assert judged(0.0346) == "supported"
    assert judged(0.02) == "contradicted"
    assert judged(0.0346, epochs=50) == "undecided"


def test_a_gradient_is_judged_layer_by_layer():
    error = xr.DataArray(
        [[[1e-6, 0.5], [1e-2, 0.9]]],
        {"estimator": ["centered"], "nudge": [1e-3, 1e-1], "layer": [1, 2]},
        ("estimator", "nudge", "layer"),
    )
    table = claims.claim_gradient(xr.Dataset({"relative_error": error}))
    assert table.verdict.tolist() == ["supported", "contradicted"]


def test_a_store_says_which_of_the_papers_data_sets_it_lacks():
    ds = store(datasets=("mnist", "kmnist_t10k_split"))
    ds["diverged"] = xr.zeros_like(ds.test_error, dtype=bool)
    said = claims.coverage(ds)[""]
    assert said["mnist"] == "MNIST"
    assert said["kmnist"] == "KMNIST (t10k split)"
    assert said["fashion_mnist"].startswith("not in this store")
    assert said["diverged runs"].startswith("0 of ")
