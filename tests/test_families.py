"""Claims judged over families of settings: from synthetic stores with planted answers."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from synthetic import SIGMAS, store

from epkit import study
from epkit.study.families import OWN, VERDICTS, effect_of
from epkit.study.intervals import share
from epkit.study.report import Evidence

SETS = ("mnist", "fashion_mnist", "kmnist_t10k_split")


def judged(ds, averaging=None, controls=(), fresh=False):
    rows = study.judged_rows(Evidence(ds, averaging, list(controls), fresh))
    return rows, study.family_verdicts(rows)


def test_planted_answers():
    """A limit of 2e-4 V on all sets, and noise that saves 30 points from 3e-6 V on."""
    rows, verdicts = judged(store(datasets=SETS, rates=(0.02, 0.1), benefit=0.3, looks=True, seeds=8))
    assert verdicts.verdict[["limit", "value", "datasets"]].tolist() == ["supported", "contradicted", "supported"]
    assert verdicts.verdict["accuracy"] == "supported"
    assert verdicts.verdict["rescue"] == "not testable"
    assert verdicts.reason["rescue"] == "no run is stuck without noise"
    assert verdicts.value["value"] == pytest.approx(2e-4, rel=0.2)
    assert verdicts.value["accuracy"] == pytest.approx(0.3, abs=0.02)
    ratios = rows[rows.claim == "datasets"]
    assert len(ratios) == 3 * 3 * 5 * 3  # pairs, definitions, epochs, rates and the best of each
    assert set(ratios.learning_rate) == {"0.02", "0.1", OWN}
    assert set(rows.verdict) <= set(VERDICTS)
    assert (rows.reason[rows.verdict == "not testable"] != "").all()


def test_a_claim_on_all_settings_falls_with_any_and_names_the_farthest():
    near = store(datasets=("mnist",), rates=(0.02, 0.1), seeds=8)
    far = xr.concat([store(datasets=("fashion_mnist",), rates=(rate,), seeds=8, limit=limit)
                     for rate, limit in ((0.02, 2e-4), (0.1, 1e-3))], "learning_rate", data_vars="all")  # fmt: skip
    far["chance"], far["title"] = (v.isel(learning_rate=0, drop=True) if "learning_rate" in v.dims else v
                                   for v in (far.chance, far.title))  # fmt: skip
    _, verdicts = judged(xr.concat([near, far], "dataset", data_vars="minimal"))
    row = verdicts.loc["datasets"]
    assert row.verdict == "contradicted"
    assert row.learning_rate == "0.1"
    assert row.value == pytest.approx(0.2, rel=0.15)
    assert row.supported > 0
    assert row.contradicted > 0


def test_intervals_of_a_family_are_wider_than_those_of_a_setting():
    """A ratio that its own interval refutes, but not for the family of all settings."""
    rows, _ = judged(store(datasets=SETS[:2], seeds=4, spread=0.4, limit=2.5e-4))
    for name, settings in rows.groupby("claim"):
        alone, together = (settings[c].isin(["undecided", "not testable"]) for c in ("verdict", "in the family"))
        assert (together | ~alone).all(), name


@pytest.mark.parametrize(
    ("changes", "claim", "reason"),
    [
        ({"floor": 0.6}, "accuracy", "at best "),
        ({"limit": 1.0}, "value", "0 of 8 seeds have a limit"),
        ({"limit": 1e-9, "sigmas": (0.0, *SIGMAS[5:])}, "optimum", "0 of 8 seeds have a limit"),
        ({"floor": 0.85}, "limit", "never learns"),
        ({"datasets": ("mnist",)}, "datasets", "a single data set"),
    ],
)
def test_what_cannot_be_tested_says_why(changes, claim, reason):
    rows, verdicts = judged(store(**{"datasets": SETS[:2], "seeds": 8} | changes))
    assert verdicts.verdict[claim] == "not testable"
    assert verdicts.reason[claim].startswith(reason)
    assert rows[rows.claim == claim].verdict.eq("not testable").all()


def test_rescued_runs_are_told_by_their_share():
    ds = store(seeds=20, rates=(0.1,), floor=0.1)
    stuck = (ds.sigma == 0) & (ds.seed < 15)
    ds["test_error"] = xr.where(stuck, 0.88, ds.test_error).transpose(*ds.test_error.dims)
    _, verdicts = judged(ds)
    row = verdicts.loc["rescue"]
    assert (row.verdict, row.n) == ("supported", 20)
    assert row.value == pytest.approx(0.75)
    assert row.low > 0.4
    ds["test_error"] = xr.where(ds.sigma == 0, 0.88, ds.test_error).transpose(*ds.test_error.dims)
    _, verdicts = judged(ds)
    assert verdicts.verdict["rescue"] == "supported"  # of all runs, and the interval ends at 1


def of_n(exponent=0.5, rng=0, **changes):
    shape = {"samples": (1, 4, 16, 64), "averaging": ("explicit",), "sigmas": 1e-5 * 2.0 ** np.arange(12)}
    return store(**shape, exponent=exponent, seeds=8, rng=rng, noise=0.03, **changes)


@pytest.mark.parametrize(("exponent", "verdict"), [(0.5, "supported"), (0.6, "contradicted"), (0.4, "contradicted")])
def test_the_exponent_of_n(exponent, verdict):
    _, verdicts = judged(store(), of_n(exponent))
    assert verdicts.verdict["scaling"] == verdict
    assert verdicts.value["scaling"] == pytest.approx(exponent, abs=0.02)


def test_a_control_that_fails_leaves_nothing_to_test():
    ds = of_n()
    sound = [of_n(rng=k).sel(samples=[1]) for k in (1, 2, 3)]
    limits = study.scaling_limits(ds, sound)
    assert limits.arm.values.tolist() == ["read-outs", "control"]
    _, verdicts = judged(store(), ds, sound)
    assert verdicts.verdict["scaling"] == "supported"
    biased = [of_n(limit=2e-4 * 1.5**k).sel(samples=[1]) for k in (1, 2, 3)]
    _, verdicts = judged(store(), ds, biased)
    assert verdicts.verdict["scaling"] == "not testable"
    assert "misses 0.5" in verdicts.reason["scaling"]


def test_nothing_is_judged_before_the_registered_number_of_seeds_is_there():
    rows, verdicts = judged(store(datasets=SETS, benefit=0.3), of_n(), fresh=True)
    assert set(verdicts.verdict) == {"not testable"}
    assert verdicts.reason["limit"] == "5 of 20 seeds are there"
    assert verdicts.reason["scaling"] == "8 of 10 seeds are there"
    assert rows.value.notna().any()


def test_the_page_is_short_and_says_what_the_rows_say():
    rows, verdicts = judged(store(datasets=SETS, rates=(0.02, 0.1), benefit=0.3), of_n())
    page = study.page(rows, "smoke")
    assert len(page) <= 10
    assert page.verdict.tolist() == verdicts.verdict.tolist()
    sentences = page.set_index("claim").sentence
    assert sentences["accuracy"].startswith(
        "**In some settings noise lowers the error by more than a point: supported.** The best noise saves 30 ["
    )
    assert "Holds: MNIST at η = 0.02, 0.1; FashionMNIST" in sentences["accuracy"]
    assert study.page(study.judged_rows(None), "no such profile").empty
    whole = study.family_table(rows)
    assert whole.map(lambda cell: isinstance(cell, (str, int, np.integer))).all(axis=None)
    assert not whole.isna().any(axis=None)


def test_the_conclusion_names_each_claim_once():
    ds = store(datasets=SETS, rates=(0.02, 0.1), benefit=0.3)
    found = Evidence(ds, of_n(), [], False)
    said = study.page(study.judged_rows(found), "smoke")
    text = study.conclusion(found, said, "smoke")
    first = text.split("Only in part")[0]
    for claim in said.claim:
        assert first.count(study.report.SAID[claim].claim) == 1
    assert "exploratory" in text
    assert "KMNIST (t10k split)" in text
    facts = json.loads(ds.attrs["parameters"])
    assert f"{facts['train_images']:,} training images" in text
    assert isinstance(said, pd.DataFrame)


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
