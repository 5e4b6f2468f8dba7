"""Several sweeps beside one another: one untrained pass, escape times, and their figures."""

import json

import numpy as np
import pytest
import synthetic
import xarray as xr
from matplotlib.figure import Figure
from test_figures import words

import epkit
from epkit import figures, study
from epkit.study.prediction import power_law, predictions
from epkit.sweep import store
from epkit.sweep.runs import untrained

TINY = {
    "dataset": ["digits"], "sigma": [0.0, 1e-3], "learning_rate": [0.05], "seeds": 2, "hidden": [12, 12],
    "input_gain": 50.0, "beta": 0.1, "iterations": 3, "epochs": 2, "train_images": 80, "test_images": 40, "looks": 1,
}  # fmt: skip


def partial(ds, runs):
    """A store of which these seeds alone are done."""
    done = ds.seed.isin(runs)
    return ds.map(lambda v: v.where(done, "" if v.dtype.kind in "OUT" else np.nan) if "seed" in v.dims else v)


def test_the_untrained_response_is_what_a_look_would_see_before_the_first_step(tmp_path):
    networks = {"two": TINY, "one": TINY | {"hidden": [12], "seeds": 1}}
    before = untrained(networks, tmp_path / "untrained.nc")
    assert before.response.dims == ("network", "seed", "layer")
    assert before.response.sel(network="two").notnull().all()
    assert before.response.sel(network="one", seed=0).notnull().sum() == 2
    assert before.response.sel(network="one", seed=1).isnull().all()
    # a training so slow that it does not move
    ds = epkit.run(TINY | {"learning_rate": [1e-9], "epochs": 1, "sigma": [0.0]}, tmp_path / "slow.nc")
    np.testing.assert_allclose(before.response.sel(network="two"), ds.response.squeeze(), rtol=1e-3)


def test_the_untrained_pass_is_kept(tmp_path, monkeypatch):
    first = untrained({"two": TINY}, tmp_path / "untrained.nc")
    monkeypatch.setattr("epkit.sweep.ensemble.data", lambda *_: pytest.fail("a complete store needs no data"))
    xr.testing.assert_identical(untrained({"two": TINY}, tmp_path / "untrained.nc"), first)
    assert store.parameters(first)["networks"]["two"]["hidden"] == [12, 12]


@pytest.mark.parametrize("look", [untrained, epkit.predicted])
def test_runs_and_networks_before_training_never_take_each_others_place(tmp_path, look):
    path = tmp_path / "sweep.nc"
    ds = epkit.run(TINY, path)
    with pytest.raises(epkit.StoreError, match="holds another kind of experiment, which would be lost; name another"):
        look({"two": TINY}, path)
    xr.testing.assert_identical(epkit.run(TINY, path), ds)
    before = look({"two": TINY}, tmp_path / "before.nc")
    with pytest.raises(epkit.StoreError, match="holds another kind of experiment, which would be lost; name another"):
        epkit.run(TINY, tmp_path / "before.nc")
    xr.testing.assert_identical(look({"two": TINY}, tmp_path / "before.nc"), before)
    epkit.run(TINY, tmp_path / "before.nc", replace=True)
    xr.testing.assert_identical(look({"two": TINY}, tmp_path / "before.nc.old"), before)


@pytest.mark.parametrize("look", [untrained, epkit.predicted])
@pytest.mark.parametrize("change", [{"variant": "leaky"}, {"cold": True}, {"nudged_iterations": 9}])
def test_what_a_look_before_training_would_leave_out_is_refused(tmp_path, look, change):
    (name,) = change
    with pytest.raises(epkit.ParameterError, match=f"networks.a: {name} = .*: only EP in the resistive network"):
        look({"a": TINY | change}, tmp_path / "before.nc")


def test_the_planted_law_is_found():
    stores, before = synthetic.architecture()
    again = stores | {"width-again": stores["width-128"]}
    found = predictions(again, before)
    assert list(found.network.values) == list(stores)  # the same network is one point
    law = power_law(found)
    assert int(law.n) == len(stores) - 2
    assert float(law.c.sel(part="low")) < 2.05
    assert float(law.c.sel(part="high")) > 1.9
    assert float(law.exponent.sel(part="low")) < 1 < float(law.exponent.sel(part="high"))
    assert "never learns" in found.reason.sel(network="width-1024").item()
    assert "largest σ" in found.reason.sel(network="gain-3000").item()


def test_too_few_networks_make_no_law():
    stores, before = synthetic.architecture()
    two = power_law(predictions({name: stores[name] for name in ("depth-1", "depth-2")}, before))
    assert np.isnan(two.exponent).all()
    assert float(two.c.sel(part="mean")) == pytest.approx(2, rel=0.1)
    none = power_law(predictions({"width-1024": stores["width-1024"]}, before))
    assert np.isnan(none.c).all()
    assert int(none.n) == 0


def records(*errors):
    """A store of one run a list of errors, at chance 0.9, with 4 records of an epoch of 100 images."""
    dims = ("dataset", "learning_rate", "averaging", "samples", "sigma", "seed", "epoch")
    coords = {"dataset": ["mnist"], "learning_rate": [1.0], "averaging": ["shortcut"], "samples": [1]}
    coords |= {"sigma": [0.0, 5e-5], "epoch": [0.25, 0.5, 0.75, 1.0]}
    error = np.array(errors).reshape(1, 1, 1, 1, 2, -1, 4)
    variables = {"test_error": (dims, error), "chance": ("dataset", [0.9]), "title": ("dataset", ["MNIST"])}
    facts = {"train_images": 100, "batch_size": 4, "sizes": {"mnist": [784, 1024, 10]}}
    return xr.Dataset(variables, coords, {"parameters": json.dumps(facts)})


CHANCE, LOW, SOON = [0.9] * 4, [0.9, 0.5, 0.4, 0.3], [0.5, 0.4, 0.3, 0.2]


def test_a_run_escapes_when_it_stays_below_chance():
    relapsed, nothing = [0.5, 0.9, 0.5, 0.4], [np.nan] * 4
    found = study.escape(records(CHANCE, relapsed, nothing, LOW, LOW, LOW)).squeeze()
    np.testing.assert_equal(found.images.values, [[np.nan, 75, np.nan], [50, 50, 50]])
    np.testing.assert_equal(found.escaped.values, [[False, True, False], [True] * 3])
    np.testing.assert_equal(found.ran.values, [[True, True, False], [True] * 3])
    assert float(found.followed) == 100


def test_what_noise_has_raised_is_paired_over_seeds():
    ds = synthetic.plateau()
    quiet = ds[["response", "conductance"]].sel(sigma=0.0)
    noisy = (ds.sigma == 5e-5) & (ds.seed != 1)  # seed 1 was not run with noise
    for name, factor in (("response", 2 * ds.layer), ("conductance", xr.DataArray(0.5))):
        other = ds[name].where(ds.sigma != 5e-5)
        ds[name] = xr.where(noisy, factor * quiet[name], other).transpose(*ds[name].dims)
    found = study.noise_factors(ds, 5e-5)
    np.testing.assert_allclose(found["mean"].sel(quantity="response"), [2, 4, 6, 8])
    np.testing.assert_allclose(found.high.sel(quantity="conductance"), 0.5)
    assert (found.n == 2).all()
    with pytest.raises(KeyError):
        study.noise_factors(ds, 7e-5)


def test_censored_runs_count_in_share_and_median():
    ds = records(CHANCE, [0.9, 0.9, 0.5, 0.4], CHANCE, LOW, LOW, CHANCE)
    found, seen = study.escape(ds), study.images_seen(ds)
    share = study.share_escaped(found, seen).squeeze()
    np.testing.assert_allclose(share.sel(sigma=0.0), [0, 0, 1 / 3, 1 / 3])
    np.testing.assert_allclose(share.sel(sigma=5e-5), [0, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_equal(study.median_escape(found, seen).squeeze().values, [np.nan, 50])
    table = study.escape_table({"net": ds})
    assert table.loc[("net", 5e-5)].tolist() == [3, 2, 50]


def test_pairs_and_the_claim():
    """Records after 25, 50, 75 and 100 images."""
    slow = [0.9, 0.9, 0.9, 0.5]
    whole = study.escape_ratio(study.escape(records(slow, slow, SOON, SOON)).squeeze(), 5e-5)
    assert float(whole["mean"]) == pytest.approx(0.25)
    assert (int(whole.n), int(whole.censored), int(whole.pairs)) == (2, 0, 2)
    assert (float(whole.low), float(whole.high)) == pytest.approx((0, 1 / 3))  # 0 to 25 images over 75 to 100
    table = study.claim_escape({"net": records(slow, slow, SOON, SOON)})
    assert table.verdict.tolist() == ["supported"]

    table = study.claim_escape({"net": records(CHANCE, slow, SOON, SOON)})
    assert table.verdict.tolist() == ["undecided"]  # for a pair is censored
    assert "1 of 2 pairs censored" in table.note[0]
    assert study.claim_escape({"net": records(slow, slow, SOON, SOON).sel(sigma=[0.0])}).empty
    later = study.claim_escape({"net": records(LOW, LOW, slow, slow)})
    assert later.verdict.tolist() == ["contradicted"]
    alone = study.claim_escape({"net": records(slow, SOON).sel(seed=[0])})
    assert alone.verdict.tolist() == ["not testable"]


@pytest.mark.parametrize("both", [SOON, LOW])
def test_pairs_that_escape_within_the_same_record_decide_nothing(both):
    table = study.claim_escape({"net": records(both, both, both, both)})
    assert table.value.item() == 1
    assert table.low.item() < 1 < table.high.item()
    assert table.verdict.item() == "undecided"


def test_what_a_store_is_its_parameters_say_and_not_its_name(tmp_path, monkeypatch):
    """Names that speak of other networks mislead nothing; only labels and file names contain them."""
    short, other = synthetic.plateau(), synthetic.plateau(rng=1)
    facts = store.parameters(other) | {"sizes": {"mnist": [784, 64, 32, 10]}}
    other = other.assign_attrs(parameters=json.dumps(facts))
    long = short.assign_coords(epoch=short.epoch * 10)
    double = synthetic.plateau(sigmas=(0.0,), dtype="float64")
    stores = {"a-long": short, "b-float64": other, "1024x9-c": long, "d": double}
    assert [study.architecture(ds) for ds in stores.values()] == ["1024x3", "64-32", "1024x3", "1024x3"]
    first, longer = study.first_and_longer(stores)
    assert (list(first), list(longer)) == (["a-long", "b-float64"], ["1024x9-c"])
    assert list(study.grouped(stores, study.architecture)["1024x3"]) == ["a-long", "1024x9-c", "d"]

    monkeypatch.setenv("EPKIT_RESULTS", str(tmp_path))
    (tmp_path / "mine").mkdir()
    notebook = study.registered_claims().escape.notebook
    for name, ds in stores.items():
        store.write(ds, tmp_path / "mine" / f"{notebook}.{name}.nc")
    escapes = study.verdicts("mine")
    assert set(escapes.store) == {f"{notebook}.a-long.nc", f"{notebook}.b-float64.nc"}


def test_what_noise_has_gained_is_told_at_each_record():
    found = study.benefit_over_images(records([0.9, 0.5, 0.2, 0.1], [0.9, 0.7, 0.4, 0.1], LOW, LOW), 5e-5)
    low = np.array(LOW)
    np.testing.assert_allclose(found["mean"], [0.9, 0.6, 0.3, 0.1] - low)
    assert found.images.values.tolist() == [25, 50, 75, 100]
    assert (found.n == 2).all()
    assert float(found.high[-1] - found.low[-1]) == pytest.approx(0, abs=1e-12)


def drawn(name):
    figures.style()
    stores, before = synthetic.architecture()
    nights = {"1024x3-mnist": synthetic.plateau(), "1024x3-kmnist": partial(synthetic.plateau(rng=1), [0, 1])}
    start = xr.Dataset(
        {"response": (("network", "seed", "layer"), np.full((2, 3, 4), 1e-4)), "voltage": (("network", "seed", "layer"),
         np.full((2, 3, 4), 17.0))}, {"network": list(nights), "layer": [1, 2, 3, 4]},
    )  # fmt: skip
    found = predictions(stores, before)
    double = {"1024x3-mnist-float64": synthetic.plateau(sigmas=(0.0,), dtype="float64")}
    return {
        "limits_over_architecture": lambda: figures.limits_over_architecture(stores, before),
        "errors_over_sigma": lambda: figures.errors_over_sigma(stores),
        "conjecture": lambda: figures.conjecture(stores, found, power_law(found)),
        "learning_curves": lambda: figures.learning_curves(nights),
        "escape_times": lambda: figures.escape_times(nights),
        "along_the_way": lambda: figures.along_the_way(nights, start, 5e-5),
        "precision": lambda: figures.precision(nights | double),
    }[name]()


FIGURES = {
    "limits_over_architecture": ["number of hidden layers", "784-128-128-128-10", "does not learn", "3,500 steps"],
    "errors_over_sigma": ["σ (V)", "1,024  (0/5)", "784-100-10  (5/5)", "A = 300 … 3,000 V"],
    "conjecture": ["critical limit σ$_c$ (V)", "c = 1.9", "exponent 1.0", "without a limit: width-1024, gain-3000"],
    "learning_curves": ["test error (%)", "partial: 14 of 21 runs", "60,000 images", "absolute rates", "5e-5 V"],
    "escape_times": ["censored", "Kaplan–Meier", "seeds that have escaped (%)", "0.9 of chance", "n = 2 … 3 seeds"],
    "along_the_way": ["nudged response (rms, V)", "mean conductance (S)", "float32 rounding", "noise of 5e-5 V"],
    "precision": ["float64", "seed 2", "σ = 0"],
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure_can_be_read_alone(name):
    figure = drawn(name)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    said = words(figure)
    for expected in FIGURES[name]:
        assert expected in said, expected


def test_all_escape_times_are_in_view():
    soon, late = synthetic.plateau(), synthetic.plateau(rng=1)
    soon["test_error"] = xr.full_like(soon.test_error, 0.1)
    panels = figures.escape_times({"1024x2-soon": soon, "1024x2-late": late}).axes[:2]
    drawn = [y for ax in panels for line in ax.lines for y in line.get_ydata() if line.get_marker() in ("o", "^")]
    assert max(drawn) == 60
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 60 for ax in panels)


def test_without_a_twin_there_is_no_figure_of_precision():
    assert figures.precision({"1024x3-mnist": synthetic.plateau()}) is None


def test_twins_are_told_by_their_parameters_not_by_their_names():
    single, double = synthetic.plateau(), synthetic.plateau(sigmas=(0.0,), dtype="float64")
    assert "b: 784-1024" in words(figures.precision({"a": double, "b": single}))
    other = double.assign_attrs(parameters=json.dumps(store.parameters(double) | {"batch_size": 8}))
    assert figures.precision({"1024x3-mnist": single, "1024x3-mnist-float64": other}) is None


def test_what_a_family_varies_is_told_by_its_parameters_not_by_its_name():
    figures.style()
    stores, before = synthetic.architecture()
    names = [name for name in stores if name.startswith(("width", "gain"))]
    some = {name: stores[name] for name in names}
    families = {name: "A" if name.startswith("width") else "B" for name in names}
    labels = [ax.get_xlabel() for ax in figures.limits_over_architecture(some, before, families).axes]
    assert labels[:2] == ["units in each hidden layer", "input gain A (V)"]
    renamed = {f"{number}-{name}": ds for number, (name, ds) in enumerate(some.items())}
    assert "does-not-matter" not in words(figures.errors_over_sigma(renamed, dict.fromkeys(renamed, "does-not-matter")))
    legends = [ax.get_legend().get_title().get_text() for ax in figures.errors_over_sigma(some, families).axes]
    assert legends == ["units in each hidden layer", "input gain A (V)"]


def test_where_nothing_is_computed_that_is_said():
    for figure in (figures.learning_curves, figures.errors_over_sigma):
        assert "nothing of this has been computed yet" in words(figure({}))
    assert "nothing of this has been computed yet" in words(figures.limits_over_architecture({}, xr.Dataset()))
    assert study.escape_table({}).empty
    assert study.claim_escape({}).empty
