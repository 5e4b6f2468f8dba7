"""Known answers: what is planted in a synthetic store must be found, and what is not there must not."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CHANCE, SIGMAS, flat, limits_of, store

from epkit import study

FEW = settings(max_examples=15, deadline=None)


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
    errors = [study.final_error(store(spread=0.3, noise=0.01, rng=rng)).squeeze(drop=True) for rng in range(60)]
    found = study.critical_limit(xr.concat(errors, "repeat"), CHANCE["mnist"])
    covered = ((found.low < 2e-4) & (found.high > 2e-4)).mean()
    assert 0.85 <= covered <= 1


def test_no_limit_is_claimed_where_none_is():
    low = flat(np.linspace(0.05, 0.1, 14))
    plateau = flat(np.interp(np.arange(14), [0, 7, 10], [0.03, 0.03, 0.33]))  # one hidden layer
    chance = flat(np.full(14, 0.9))
    for error, reason in ((low, "below half way"), (plateau, "below half way"), (chance, "never learns")):
        found = study.critical_limit(error, 0.9)
        assert not found.bracketed.any()
        assert np.isnan(found["mean"])
        assert int(found.n) == 0
        assert all(text.startswith(reason) for text in found.reason.values)


def test_limit_is_censored_seed_by_seed():
    turn = flat(np.where(np.arange(14) < 9, 0.05, 0.9)).values
    turn[:, 1] = 0.9  # this seed never learns
    turn[:, 2] = 0.05  # this one has its limit above the sweep
    found = study.critical_limit(flat(turn), 0.9)
    assert found.bracketed.values.tolist() == [True, False, False, True]
    assert found.reason.values[1] == "above half way from the optimum on"
    assert found.reason.values[2].startswith("below half way even")
    assert SIGMAS[8] < found["mean"] < SIGMAS[9]
    assert int(found.n) == 2
    assert int(found.runs) == 4


def test_few_sigmas_are_interpolated_not_fitted():
    error = flat(np.where(np.arange(14) < 9, 0.05, 0.9)).sel(sigma=[SIGMAS[7], SIGMAS[8], SIGMAS[9]])
    found = study.critical_limit(error, 0.95)
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
        lambda ds: study.optimum(study.final_error(ds), study.choice_error(ds)),
        lambda ds: study.beyond_tuning(study.final_error(ds), study.choice_error(ds)),
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
    error = study.final_error(ds)
    assert (error.sel(seed=0) == CHANCE["mnist"]).all()
    assert error.sel(seed=1).isnull().all()
    assert int(limits_of(ds.sel(seed=[1, 2, 3, 4])).runs.squeeze()) == 3
    assert limits_of(ds).reason.sel(seed=1).item() == "not run"
    last = study.final_error(store(epochs=6), last=3)
    np.testing.assert_allclose(last, store(epochs=6).test_error.isel(epoch=slice(3, 6)).mean("epoch"))


def test_share_of_runs_that_learn():
    error = flat(np.full((14, 10), 0.05))
    error[-1, :3] = 0.9
    found = study.learning_share(error, 0.9)
    assert found["mean"].values[[0, -1]].tolist() == [1, 0.7]
    # Wilson for 7 of 10, by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert float(found.low[-1]) == pytest.approx(0.3968, abs=1e-3)
    assert float(found.high[-1]) == pytest.approx(0.8922, abs=1e-3)
    assert (study.learning_share(flat(np.full(14, 0.9)), 0.9)["mean"] == 0).all()


def test_wilson_of_nothing_is_unknown():
    assert np.isnan(study.intervals.wilson(0, 0)).all()
    assert study.intervals.wilson(7, 10)[1:] == pytest.approx((0.3968, 0.8922), abs=1e-3)


def test_the_half_width_of_a_mean_by_hand():
    """Two values 0 and 2: sd = √2, t(0.975, 1 degree of freedom) = 12.706."""
    width = study.intervals.t_half_width(np.sqrt([2.0, 2.0]), np.array([2, 1]))
    assert width[0] == pytest.approx(12.706, rel=1e-4)
    assert np.isnan(width[1])


# --- scaling, ratios, curves


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5])
def test_scaling_exponent(exponent):
    samples = xr.DataArray([1, 4, 16, 64], dims="samples", coords={"samples": [1, 4, 16, 64]})
    limits = 2e-4 * samples**exponent * xr.DataArray([1.0, 1.3, 0.8], dims="seed", coords={"seed": [0, 1, 2]})
    found = study.scaling_exponent(limits)
    np.testing.assert_allclose(found.slope, exponent, atol=1e-12)
    limits[1, 0] = limits[1:3, 1] = np.nan  # three N are enough, two are not
    found = study.scaling_exponent(limits)
    assert found.slope.notnull().values.tolist() == [True, False, True]
    assert int(found.n) == 2
    assert float(found["mean"]) == pytest.approx(exponent)


def test_scaling_through_the_whole_chain():
    ds = store(samples=(1, 4, 16), averaging=("explicit", "shortcut"), seeds=4, epochs=4)
    slopes = study.claim_scaling(ds)
    assert slopes.setting.tolist() == ["primary", "secondary"]  # explicit, shortcut
    assert set(slopes.verdict) <= {"supported", "contradicted"}
    assert np.allclose(slopes.value, 0.5, atol=0.02)
    apart = study.claim_scaling(store(samples=(1, 4, 16), exponent=0.2, sigmas=(0, *(1e-5 * 2.0 ** np.arange(10)))))
    assert apart.verdict.tolist() == ["contradicted"]


def test_ratio_is_paired():
    limits = limits_of(store(spread=0.8)).limit.squeeze()
    found = study.limit_ratio(limits * 3, limits)
    assert [float(found[name]) for name in ("mean", "low", "high")] == pytest.approx([3, 3, 3])


def test_a_runs_first_passage_and_the_value_at_its_limit():
    error = xr.DataArray([[0.9, 0.4, 0.6], [0.9, 0.8, 0.7]], {"seed": [0, 1], "epoch": [1, 2, 3]}, ("seed", "epoch"))
    assert study.epochs_until(error, 0.5).values.tolist() == [2, np.inf]
    positive = np.array(SIGMAS[1:])
    falling = 1e-4 / xr.DataArray(positive, {"sigma": positive}, "sigma")
    limit = xr.DataArray([5e-5, np.nan], dims="seed")
    found = study.at_limit(falling, limit)
    assert float(found[0]) == pytest.approx(2)
    assert np.isnan(found[1])


def test_curves_that_depend_on_sigma_over_root_n_collapse():
    sigmas = (0.0, *(1e-5 * 2.0 ** np.arange(10)))
    ds = store(sigmas=sigmas, samples=(1, 4, 16), noise=0.002)
    found = study.collapse(study.final_error(ds)).squeeze(drop=True)
    assert found.samples.values.tolist() == [4, 16]
    assert found.points.values.tolist() == [9, 8]
    assert (abs(found["mean"]) < 0.003).all()
    apart = study.collapse(study.final_error(store(sigmas=sigmas, samples=(1, 4), exponent=0.2))).squeeze(drop=True)
    assert float(apart.low) > 0.05
    assert (found.distance < 0.003).all()
    assert float(apart.distance) > 0.05
    with pytest.raises(ValueError, match="single read-out"):
        study.collapse(study.final_error(store(sigmas=sigmas, samples=(4, 16))))


def test_the_floor_of_a_distance_is_what_other_seeds_make():
    """Two sets of seeds drawn alike: their curves lie as far apart as the floor, found from one set, says."""
    sigma = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    measured, floors = [], []
    for rng in range(160):
        values = np.random.default_rng(rng).normal(0.3, 0.1, size=(2, 5, 10))
        coords = {"samples": [1, 4], "sigma": sigma, "seed": np.arange(10)}
        found = study.curve_distance(xr.DataArray(values, coords, ("samples", "sigma", "seed")))
        measured.append(float(found["mean"]))
        floors.append(float(found.floor))
    assert np.mean(floors) == pytest.approx(np.mean(measured), rel=0.1)
    alike = (
        xr.DataArray(values, coords, ("samples", "sigma", "seed")).isel(samples=[0, 0]).assign_coords(samples=[1, 4])
    )
    shifted = alike.copy(data=np.stack([alike[0], np.roll(alike[0], 1, axis=0)]))  # error(4, 2σ) = error(1, σ)
    assert float(study.curve_distance(shifted)["mean"]) == 0
