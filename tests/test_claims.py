"""Verdicts: thresholds applied to intervals, and the tables of claims from synthetic stores."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from synthetic import SIGMAS, store

from epkit import study
from epkit.sweep.parameters import ParameterError


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
    assert study.verdict(low, high, inside=(0.4, 0.6), contains=0.5) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.6, 1.9, "supported"), (0.4, 1.0, "undecided"), (2.1, 3.0, "contradicted")],
)
def test_verdict_on_equivalence(low, high, expected):
    assert study.equivalent(low, high, factor=2) == expected


def test_claims_are_judged_from_the_store():
    names = ("mnist", "kmnist_t10k_split", "fashion_mnist")
    ds = store(datasets=names, rates=(0.02, 0.1), benefit=0.3)
    names = ("limit", "datasets", "benefit", "optimum", "beyond_tuning")
    tables = [getattr(study.claims, f"claim_{name}")(ds) for name in names]
    for table in tables:
        assert list(table.columns) == study.claims.FIXED_COLUMNS
        assert table.n.min() == 5
        assert table.measure.str.contains("4,000 steps").all()
    assert all(table.measure.str.contains("η = 0.").all() for table in tables[:4])
    assert [len(table) for table in tables] == [6, 7, 6, 6, 3]
    assert [(table.setting == "primary").sum() for table in tables] == [1, 4, 3, 3, 3]
    assert all(table.setting.iloc[0] == "primary" for table in tables)
    assert all(set(table.verdict) == {"supported"} for table in tables)
    far = store(limit=1e-3, datasets=("fashion_mnist",))
    apart = xr.concat([store(), far], "dataset", data_vars="all", join="exact")
    judged = study.claim_datasets(apart)
    assert set(judged.verdict) == {"contradicted"}
    assert judged.value.iloc[0] == pytest.approx(0.2, rel=0.1)
    assert study.claim_datasets(store()).verdict.tolist() == ["undecided"]
    assert study.claim_limit(store(seeds=1)).verdict.tolist() == ["undecided"]
    assert study.claim_limit(store(limit=1.0)).verdict.tolist() == ["undecided"]
    assert study.claim_limit(store(limit=1e-9, sigmas=SIGMAS[1:])).verdict.tolist() == ["contradicted"]
    assert study.claim_benefit(store(benefit=-0.04)).verdict.tolist() != ["supported"]


def test_all_pairs_are_judged_at_the_primary_setting():
    """A pair apart at another learning rate does not decide."""
    near = store(datasets=("mnist", "fashion_mnist"), rates=(0.02,))
    far = store(datasets=("mnist",), rates=(0.1,)), store(datasets=("fashion_mnist",), rates=(0.1,), limit=1e-3)
    ds = xr.concat([near, xr.concat(far, "dataset", data_vars="all")], "learning_rate", data_vars="all")
    ds["chance"], ds["title"] = near.chance, near.title
    table = study.claim_datasets(ds)
    assert table.verdict.tolist() == ["supported", "contradicted", "supported"]
    assert table.setting.tolist() == ["primary", "secondary", "primary"]


def test_one_more_data_set_is_judged_in_units_of_its_response():
    ds, check = store(looks=True), store(datasets=("fashion_mnist",), limit=2e-3, looks=True)
    check.attrs["parameters"] = check.attrs["parameters"].replace("mnist", "fashion_mnist")
    check["response"] = 10 * check.response
    table = study.claim_check(ds, check)
    assert table.verdict.tolist() == ["supported"]
    assert table.value.iloc[0] == pytest.approx(1, abs=0.1)
    in_volts = study.claim_check(ds, check.drop_vars("response"))
    assert in_volts.verdict.tolist() == ["undecided"]
    assert in_volts.value.iloc[0] == pytest.approx(10, rel=0.1)


def test_where_reported_accuracies_appear():
    found = study.runs_like_reported(store(datasets=("mnist", "kmnist_t10k_split"), floor=0.03, benefit=0.2))
    assert found.index.tolist() == ["KMNIST (t10k split): 77% without noise", "KMNIST (t10k split): 97% at its best σ"]
    assert found["runs like that (test)"].gt(0).all()
    assert found["at (test)"].str.contains("η = 0.02, σ = 0").tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("factor: 2.0", "datasets.factr: no such parameter"),
        ("within: 10.0", "limit.within = 0.5: Input should be greater than 1"),
        ("inside: [0.4, 0.6]", "scaling.inside = [0.6, 0.4]: a range is [low, high]"),
        ("learns: 0.9", "learns = 1.1: Input should be less than 1"),
    ],
)
def test_a_fault_in_the_fixed_claims_is_named(tmp_path, monkeypatch, text, message):
    wrong = {"factor: 2.0": "factr: 2.0", "within: 10.0": "within: 0.5", "inside: [0.4, 0.6]": "inside: [0.6, 0.4]",
             "learns: 0.9": "learns: 1.1"}  # fmt: skip
    path = tmp_path / "claims.yaml"
    path.write_text(study.registration.FIXED.read_text(encoding="utf-8").replace(text, wrong[text]), encoding="utf-8")
    monkeypatch.setattr(study.registration, "FIXED", path)
    study.registered_claims.cache_clear()
    with pytest.raises(ParameterError) as caught:
        study.registered_claims()
    study.registered_claims.cache_clear()
    assert "params/claims.yaml: " + message in str(caught.value)


def test_the_registered_claims_go_with_the_package():
    """params/claims.yaml is also a file of epkit.study, which a wheel holds: limits need it."""
    root = Path(__file__).parents[1]
    assert study.registration.FIXED.samefile(root / "params" / "claims.yaml")
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert study.registration.FIXED.name in data["epkit.study"]


@pytest.fixture
def threshold(tmp_path, monkeypatch):
    """Replaces text in what `registered_claims` reads, for one test."""

    def replace(old, new):
        text = study.registration.FIXED.read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "claims.yaml").write_text(text.replace(old, new), encoding="utf-8")
        monkeypatch.setattr(study.registration, "FIXED", tmp_path / "claims.yaml")
        study.registered_claims.cache_clear()

    yield replace
    study.registered_claims.cache_clear()


def test_no_threshold_stands_in_code(threshold):
    """Those that once did: moved in the file, they move the verdicts."""
    net = {"net": store(sigmas=(0.0, 1e-9), floor=0.035, noise=1e-4, spread=0).isel(sigma=[0])}
    error = xr.DataArray(
        [[[1e-6, 0.5]]], {"estimator": ["centered"], "nudge": [1e-3], "layer": [1, 2]}, ("estimator", "nudge", "layer")
    )
    gradient = xr.Dataset({"relative_error": error})
    networks = xr.Dataset(
        {
            "relative_error": (("network", "iteration", "reference", "layer"), [[[[0.05], [0.05]]]]),
            "published_iterations": ("network", [4]),
            "float32_error": (("network", "layer"), [[0.05]]),
            "diode_error": (("scale", "circuit", "layer"), [[[0.05], [0.05]]]),
            "forward": ("scale", [0.7]),
        },
        {"network": ["net"], "iteration": [4], "reference": ["converged", "exact"], "circuit": ["ideal", "real"]},
    ).set_coords("forward")

    def verdicts():
        tables = (
            study.claim_published(net, {"net": 0.0346}, {"net": 4}),
            study.claim_gradient(gradient),
            study.claim_exactness(networks),
            study.claim_limit(store(floor=0.6)),
        )
        return [table.verdict.unique().tolist() for table in tables]

    assert verdicts() == [["supported"], ["supported", "contradicted"], ["supported"], ["supported"]]
    threshold("within: 0.003", "within: 0.0001")
    assert verdicts()[0] == ["contradicted"]
    threshold("within: 0.01 ", "within: 0.6 ")
    assert verdicts()[1] == ["supported"]
    threshold("within: 0.1 ", "within: 0.01 ")
    assert verdicts()[2] == ["contradicted"]
    threshold("learns: 0.9", "learns: 0.5")
    assert verdicts()[3] == ["contradicted"]


@pytest.mark.parametrize("rate", [np.linspace(0.01, 0.03, 3)[1], np.float32(0.02), 0.1 * 0.2])
def test_a_rounding_step_does_not_hide_the_primary_setting(rate):
    assert study.claim_limit(store(rates=(float(rate), 0.02 * (1 + 1e-5)))).setting.tolist() == ["primary", "secondary"]
    table = study.claim_limit(store().assign_coords(learning_rate=[rate]))
    assert table.setting.tolist() == ["primary"]


def test_settings_that_were_not_run_have_no_row():
    ds = store(datasets=("mnist", "fashion_mnist"), rates=(0.02, 0.1))
    ds["test_error"] = ds.test_error.where((ds.dataset == "mnist") | (ds.learning_rate < 0.05))
    assert len(study.claim_limit(ds)) == 3
    assert len(study.claim_datasets(ds)) == 2  # one pair and the summary


def test_published_errors_are_judged_only_after_all_epochs_and_over_seeds():
    one = {"net": store(sigmas=(0.0, 1e-9), floor=0.035, noise=1e-4, spread=0).isel(sigma=[0])}

    def judged(error, epochs=4):
        return study.claim_published(one, {"net": error}, {"net": epochs}).verdict.item()

    assert judged(0.0346) == "supported"
    assert judged(0.02) == "contradicted"
    assert judged(0.0346, epochs=50) == "undecided"


def test_a_gradient_is_judged_layer_by_layer():
    error = xr.DataArray(
        [[[1e-6, 0.5], [1e-2, 0.9]]],
        {"estimator": ["centered"], "nudge": [1e-3, 1e-1], "layer": [1, 2]},
        ("estimator", "nudge", "layer"),
    )
    table = study.claim_gradient(xr.Dataset({"relative_error": error}))
    assert table.verdict.tolist() == ["supported", "contradicted"]


def test_a_store_says_which_of_the_papers_data_sets_it_lacks():
    ds = store(datasets=("mnist", "kmnist_t10k_split"))
    ds["diverged"] = xr.zeros_like(ds.test_error, dtype=bool)
    said = study.coverage(ds)[""]
    assert said["mnist"] == "MNIST"
    assert said["kmnist"] == "KMNIST (t10k split)"
    assert said["fashion_mnist"].startswith("not in this store")
    assert said["diverged runs"].startswith("0 of ")
