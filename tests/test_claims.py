"""Verdicts: thresholds applied to intervals, and the tables of claims from synthetic stores."""

import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from synthetic import SIGMAS, plateau, store

import epkit
from epkit import study
from epkit.messages import ParameterError
from epkit.study.diagnosis import DIVERGED


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.45, 0.55, "supported"),
        (0.3, 0.7, "undecided"),
        (0.51, 0.55, "contradicted"),
        (math.nan, 1, "not testable"),
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
        assert list(table.columns) == study.claims.COLUMNS
        assert table.n.min() == 5
        assert (table.steps == 8750).all()
        assert (table.network == "784-128³-10").all()
    assert all(set(table.learning_rate) == {0.02, 0.1} for table in tables[:4])
    assert [len(table) for table in tables] == [6, 7, 6, 6, 3]
    assert [(table.setting == "primary").sum() for table in tables] == [1, 4, 3, 3, 3]
    assert all(table.setting.iloc[0] == "primary" for table in tables)
    expected = ["supported", "supported", "supported", "not testable", "supported"]  # no interval of σ*/σ_c will do
    assert [table.verdict.unique().tolist() for table in tables] == [[verdict] for verdict in expected]
    far = store(limit=1e-3, datasets=("fashion_mnist",))
    apart = xr.concat([store(), far], "dataset", data_vars="all", join="exact")
    judged = study.claim_datasets(apart)
    assert set(judged.verdict) == {"contradicted"}
    assert judged.value.iloc[0] == pytest.approx(0.2, rel=0.1)
    assert study.claim_datasets(store()).verdict.tolist() == ["not testable"]
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
    assert in_volts.verdict.tolist() == ["not testable"]
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
    net = {"net": store(sigmas=(0.0, 1e-9), floor=0.035, epochs=4, noise=1e-4, spread=0).isel(sigma=[0])}
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
    one = {"net": store(sigmas=(0.0, 1e-9), floor=0.035, epochs=4, noise=1e-4, spread=0).isel(sigma=[0])}

    def judged(error, epochs=4):
        return study.claim_published(one, {"net": error}, {"net": epochs}).verdict.item()

    assert judged(0.0346) == "supported"
    assert judged(0.02) == "contradicted"
    assert judged(0.0346, epochs=50) == "not testable"


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


# --- primary means all of it


@pytest.mark.parametrize(
    "changes",
    [{"hidden": [64, 64]}, {"epochs": 9}, {"train_images": 8000}, {"beta": 0.8}, {"dtype": "float64"},
     {"validation_images": None}, {"rates": [0.1] * 4}, {"readout": "Mine, source sha256 1"}, {"network": "Mine"}],
)  # fmt: skip
def test_networks_that_were_not_trained_as_registered_are_another_setting(changes):
    ds = store(rates=(0.02, 0.1))
    facts = {name: v for name, v in (json.loads(ds.attrs["parameters"]) | changes).items() if v is not None}
    if "epochs" in changes:
        ds = ds.isel(epoch=slice(changes["epochs"]))
    other = ds.assign_attrs(parameters=json.dumps(facts))
    for claim in (study.claim_limit, study.claim_benefit, study.claim_optimum, study.claim_beyond_tuning):
        assert set(claim(other).setting) == {"another setting"}
    assert study.claim_limit(store(rates=(0.02, 0.1))).setting.tolist() == ["primary", "secondary"]


def test_what_does_not_move_a_number_does_not_hide_the_primary_setting():
    ds = store()
    facts = json.loads(ds.attrs["parameters"]) | {"looks": 3, "beta": float(np.float32(0.7)), "seeds": 4}
    assert study.claim_limit(ds.assign_attrs(parameters=json.dumps(facts))).setting.tolist() == ["primary"]


def test_only_the_papers_network_on_its_data_set_is_primary_for_the_escape():
    names = {"mnist": "primary", "fashion_mnist": "secondary"}
    stores = {name: plateau().assign_coords(dataset=[name]) for name in names}
    smaller = json.loads(plateau().attrs["parameters"]) | {"hidden": [1024, 1024]}
    stores["smaller"] = plateau().assign_attrs(parameters=json.dumps(smaller))
    judged = study.claim_escape(stores)
    assert judged.setting.tolist() == ["primary", "secondary", "another setting"]


def test_all_pairs_are_those_at_the_registered_rate_whatever_network_was_trained():
    near = store(datasets=("mnist", "fashion_mnist"), rates=(0.02,), epochs=4)
    far = [
        store(datasets=(name,), rates=(0.1,), epochs=4, limit=v)
        for name, v in (("mnist", 2e-4), ("fashion_mnist", 1e-3))
    ]
    ds = xr.concat([near, xr.concat(far, "dataset", data_vars="all")], "learning_rate", data_vars="all")
    ds["chance"], ds["title"] = near.chance, near.title
    table = study.claim_datasets(ds)
    assert table.setting.tolist() == ["another setting"] * 3
    assert table.verdict.tolist() == ["supported", "contradicted", "supported"]


# --- numerical failures, and networks that never learn


def test_where_every_run_diverged_nothing_is_judged():
    """At chance by default, their benefit is 0 and their curves collapse: a verdict on nothing."""
    names = ("mnist", "fashion_mnist")
    ds = store(datasets=names, rates=(0.02, 0.1), samples=(1, 4, 16), looks=True)
    failed = ds.copy(deep=True)
    failed["test_error"] = ds.test_error * np.nan
    failed["diverged"] = xr.ones_like(ds.diverged)
    judges = (study.claim_limit, study.claim_datasets, study.claim_scaling, study.claim_benefit, study.claim_optimum,
              study.claim_beyond_tuning)  # fmt: skip
    for judge in judges:
        table = judge(failed)
        assert set(table.verdict) == {"not testable"}, judge.__name__
        assert set(table.note) == {DIVERGED}, judge.__name__
        assert table[["value", "low", "high"]].isna().all(axis=None)
    one = failed.isel(dataset=[0], samples=[0], learning_rate=[0], sigma=[0])
    assert set(study.claim_published({"net": one}, {"net": 0.03}, {"net": 10}).verdict) == {"not testable"}
    check = failed.isel(dataset=[0], samples=[0])
    assert set(study.claim_check(ds.isel(samples=[0]), check).verdict) == {"not testable"}
    gradient = xr.DataArray([[[math.nan]]], {"estimator": ["centered"], "nudge": [1e-3], "layer": [1]},
                            ("estimator", "nudge", "layer"))  # fmt: skip
    assert study.claim_gradient(xr.Dataset({"relative_error": gradient})).verdict.tolist() == ["not testable"]


def test_a_setting_of_which_all_runs_diverged_leaves_its_neighbours_alone():
    ds = store(rates=(0.02, 0.1))
    ds["diverged"] = ds.diverged | (ds.learning_rate == 0.1)
    table = study.claim_limit(ds)
    assert table.verdict.tolist() == ["supported", "not testable"]
    assert study.all_diverged(ds).squeeze().values.tolist() == [False, True]
    ds["diverged"] = ds.diverged & (ds.sigma > 0)
    assert study.claim_limit(ds).verdict.tolist()[1] == "undecided"  # learns without noise
    assert not study.all_diverged(ds).any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"input_gain": 20000.0}, "outputs are farther from their targets than at 0 V: lower the gain"),
        ({"input_gain": 0.5}, "do not tell the images apart: raise the gain"),
        ({"learning_rate": [5.0]}, "less than 1% of the units of layer 1 conduct after training: lower the learning"),
        ({"learning_rate": [500.0]}, "the nudge moves nothing in layer 1: lower the learning rate"),
        ({"learning_rate": [5e4]}, "conduct"),
        ({"learning_rate": [5e-5]}, "than at 0 V: raise the learning rate or train for longer"),
        ({"sigma": [0.1, 1.0]}, "noise exceeds the signal in layers 1, 2 even at the least σ, 0.1 V: sweep lower σ"),
    ],
)
def test_a_network_that_never_learns_gets_a_reason(tmp_path, changes, expected):
    """Networks 64-32-32-10 of digits around a gain of 100 V and a rate of 0.05, at which they learn."""
    sweep = {"dataset": ["digits"], "sigma": [0.0, 1e-5], "learning_rate": [0.05], "seeds": 3, "hidden": [32, 32],
             "input_gain": 100.0, "beta": 0.3, "epochs": 6, "train_images": 1200, "test_images": 397,
             "looks": 1}  # fmt: skip
    ds = epkit.run(sweep | changes, tmp_path / "digits.nc")
    text = study.diagnosis(ds).item()
    assert expected in text
    row = study.claim_limit(ds).squeeze()
    assert ("never learns" in row.note) == bool(text)
    assert text in row.note
    if not text:
        assert row.verdict != "contradicted"
    without = study.diagnosis(ds.drop_vars(["response", "signal_to_noise", "clamped", "train_cost"])).item()
    assert bool(without) == bool(text)


# --- tables are shown whole


@pytest.fixture
def small_display():
    """A reader's options of pandas, which cut and round."""
    options = {"max_colwidth": 10, "max_rows": 4, "max_columns": 2, "width": 40, "precision": 1, "max_seq_items": 1}
    with pd.option_context(*(part for name, value in options.items() for part in (f"display.{name}", value))):
        yield


def test_a_table_is_whole_whatever_the_readers_options_are(small_display):
    table = study.claim_limit(store(rates=tuple(np.linspace(0.001, 0.1, 70))))
    shown = study.rounded(table)
    with pd.option_context("display.max_colwidth", 80, "display.precision", 3):
        assert repr(shown) == repr(study.rounded(table))
    for text in (repr(shown), shown._repr_html_()):
        assert "..." not in text
        assert "…" not in text
        assert "784-128³-10" in text
        assert "swept in steps of ×2.2" in text
        assert "claim: a critical limit exists" in text
    assert len(repr(shown).splitlines()) == 2 + 70
    wide = pd.DataFrame(np.pi * np.ones((3, 40)), index=["a", "b", "c"])
    assert len(repr(study.whole(wide)).splitlines()) == 4
    assert repr(study.whole(wide)).count("3.141593") == 120
    assert study.whole(wide)._repr_html_().count("3.141593") == 120


def test_columns_say_each_its_own_and_what_is_common_is_said_once():
    ds = store(datasets=("mnist", "fashion_mnist"), rates=(0.02, 0.1))
    shown = study.rounded(study.claim_limit(ds))
    columns = ["data set", "η", "value", "low", "high", "n", "verdict", "setting"]
    assert shown.frame.columns.tolist() == columns
    for fact in (
        "claim: a critical",
        "network: 784-128³-10",
        "N: 1",
        "steps: 8,750",
        "measure: σ_c (V)",
        "note: swept",
    ):
        assert fact in shown.caption
    assert set(shown.frame["η"]) == {"0.02", "0.1"}
    alone = study.rounded(study.claim_limit(store()))
    assert alone.frame.loc["measure"].item() == "σ_c (V)"  # a single row is transposed
    assert alone.frame.shape[1] == 1


def test_texts_in_a_table_are_not_run():
    table = study.claim_limit(store()).assign(dataset="<script>")
    for html in (study.rounded(table)._repr_html_(), study.rounded(pd.concat([table] * 2))._repr_html_()):
        assert "<script" not in html
