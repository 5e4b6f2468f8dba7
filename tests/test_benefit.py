"""What noise gains: a planted benefit is found, and none is made by choosing the best of many noisy means."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import flat, limits_of, store

from epkit import study

FEW = settings(max_examples=15, deadline=None)


def test_benefit_is_recovered_and_not_flattered():
    planted = study.optimum(study.final_error(store(benefit=0.3))).squeeze()
    assert float(planted["mean"]) == pytest.approx(0.3, abs=0.01)
    assert float(planted.low) > 0.28
    assert 1e-5 < planted.sigma_star < 1e-4
    noise = np.random.default_rng(1).normal(0.2, 0.05, size=(400, 14, 4))
    error = xr.concat([flat(each) for each in noise], "repeat")
    honest = study.optimum(error)["mean"]
    naive = error.mean("seed").isel(sigma=0) - error.mean("seed").isel(sigma=slice(1, None)).min("sigma")
    assert abs(float(honest.mean())) < 0.005 < 0.03 < float(naive.mean())
    with pytest.raises(ValueError, match="sigma = 0"):
        study.optimum(flat(np.full(14, 0.1)).isel(sigma=slice(1, None)))
    assert np.isnan(study.optimum(flat(np.full((14, 1), 0.1)))["mean"])


def test_noise_that_only_repairs_a_bad_learning_rate_adds_nothing_to_tuning():
    """The plane is pure noise around an error that depends on the learning rate alone."""
    rate = xr.DataArray([0.0, 0.3], {"learning_rate": [0.02, 0.1]}, "learning_rate")
    noise = np.random.default_rng(2).normal(0.2, 0.05, size=(300, 14, 6))
    error = xr.concat([flat(each) for each in noise], "repeat") + rate
    found = study.beyond_tuning(error)
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
    found = study.optimum(test, validation)
    np.testing.assert_allclose(found.at_star, [0.1, 0.45, 0.35])
    np.testing.assert_allclose(found.benefit, [0.4, 0.05, 0.15])
    assert float(found["mean"]) == pytest.approx(0.2)
    assert float(found.sigma_star) == 2  # 0 is not a noise, although it is best here
    tuned = study.beyond_tuning(test.expand_dims(learning_rate=[0.1]), validation.expand_dims(learning_rate=[0.1]))
    np.testing.assert_allclose(tuned.difference, found.benefit)
    assert (float(tuned.rate_noisy), float(tuned.sigma_noisy)) == (0.1, 2)


@FEW
@given(shift=st.floats(0, 0.2), order=st.permutations(range(6)))
def test_a_common_shift_changes_no_benefit_and_seeds_have_no_rank(shift, order):
    values = np.random.default_rng(3).choice(np.arange(0.1, 0.6, 0.05), size=(14, 6))  # with ties
    found = study.optimum(flat(values))
    relabelled = study.optimum(flat(values[:, list(order)] + shift))
    np.testing.assert_allclose(np.sort(relabelled.benefit), np.sort(found.benefit), atol=1e-12)
    assert relabelled.sigma_star == found.sigma_star


def test_optimum_over_limit():
    ds = store(benefit=0.3, noise=0.0, floor=0.05, width=0.2)
    error = study.final_error(ds)
    limit = limits_of(ds).limit
    found = study.star_over_limit(error, limit).squeeze()
    star = float(error.mean("seed").idxmin("sigma").squeeze())
    geometric = math.exp(float(np.log(limit).mean()))
    assert float(found["mean"]) == pytest.approx(star / geometric)
    assert int(found.n) == 5
    assert np.isnan(found.low)  # no interval holds its level
