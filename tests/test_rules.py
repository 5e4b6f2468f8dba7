"""What notebooks 16 and 17 ask of their stores, on synthetic ones with planted answers, and an optimiser in a sweep."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from synthetic import recorded, store

import epkit
from epkit import figures, study
from epkit.study import rules
from epkit.sweep import ensemble

TINY = {
    "dataset": ["digits"], "hidden": [12], "input_gain": 60.0, "beta": 0.1, "iterations": 4, "train_images": 64,
    "test_images": 40, "epochs": 2, "seeds": 1, "learning_rate": [0.01], "sigma": [0.0, 1e-2], "optimiser": "adam",
}  # fmt: skip


def sweep(limit=1e-3, **facts):
    sigmas = (0.0, *(limit * np.logspace(-1.2, 1.2, 9)))
    ds = store(sigmas=sigmas, limit=limit, spread=0.2, noise=0.0, epochs=1)
    return recorded(ds, **{"estimator": "centered"} | facts)


def level(error, **facts):
    ds = store(sigmas=(0.0,), noise=0.0, epochs=1)
    ds["test_error"][:] = error + np.array([0.0, 0.01, -0.01, 0.02, -0.02])[:, None]
    return recorded(ds, **{"estimator": "positive"} | facts)


def published(error, **facts):
    return level(error, network="hopfield", nudged_iterations=50, **facts)


def rule_stores():
    return {
        "centered": sweep(),
        "positive": sweep(4e-4, estimator="positive"),
        "cold": sweep(2e-4, estimator="positive", cold=True),
        "momentum": sweep(1.1e-3, optimiser="momentum"),
        "adam": sweep(3e-3, optimiser="adam"),
        "hopfield": sweep(5e-2, network="hopfield"),
        "baseline": level(0.07, estimator="backpropagation"),
        "exact": published(0.1, beta=0.1),
        "noisy": published(0.9, beta=0.1, relaxation_noise=0.04),
        "exact-strong": published(0.1, beta=0.4),
        "noisy-strong": published(0.3, beta=0.4, relaxation_noise=0.04),
    }


def test_rules_are_named_by_what_their_stores_record():
    assert list(rules.rule_errors(rule_stores())) == [
        "centred estimate", "positive estimate", "positive estimate, phases that start cold", "momentum", "Adam",
        "Hopfield network", "backpropagation",
    ]  # fmt: skip


def test_the_planted_answers_are_read():
    effects = study.rule_effects(rule_stores())
    assert set(effects) == set(study.registered_claims().later["16_other_networks"].claims)
    for name, ratio in {"one_sided": 0.4, "cold": 0.5, "momentum": 1.1, "adam": 3.0}.items():
        np.testing.assert_allclose(effects[name].values, ratio, rtol=0.02, err_msg=name)
    exact = float(rule_stores()["centered"].test_error.sel(sigma=0).mean())
    assert float(effects["baseline"].values.mean()) == pytest.approx(exact - 0.07)
    np.testing.assert_allclose(effects["relaxation"].values, 0.6, atol=1e-6)


def relaxation_stores():
    stores = {name: ds for name, ds in rule_stores().items() if name.startswith(("exact", "noisy"))}
    return stores | {"weak-strong": published(0.15, beta=0.4, relaxation_noise=0.018)}


def test_noise_in_the_relaxation_is_compared_with_none_and_between_nudges():
    effects = study.relaxation_effects(relaxation_stores())
    assert set(effects) == set(study.registered_claims().later["17_noise_in_relaxation"].claims)
    np.testing.assert_allclose(effects["nudge"].values, 0.6, atol=1e-6)
    np.testing.assert_allclose(effects["cost"].values, 0.2, atol=1e-6)
    np.testing.assert_allclose(effects["averaging"].values, 0.15, atol=1e-6)
    table = study.relaxation_table(relaxation_stores())
    assert table.loc[(0.04, 0.4), "seeds"] == "30.0, 31.0, 29.0, 32.0, 28.0"
    assert (0.018, 0.1) not in table.index


def test_the_table_and_the_figures_say_what_stores_hold():
    stores = rule_stores()
    table = study.rule_table(stores)
    assert table.loc["backpropagation", "limit"] == "none"
    assert table.loc["Adam", "n"] == "5 of 5"
    figures.style()
    panels = figures.error_by_rule({name: ds.assign_coords(dataset=["digits"]) for name, ds in stores.items()})
    assert [ax.get_title().splitlines()[0] for ax in panels.axes[:2]] == ["centred estimate", "positive estimate"]
    shown = figures.noise_in_relaxation(stores)
    assert [t.get_text() for t in shown.axes[0].get_xticklabels()] == ["β = 0.1", "β = 0.4"]
    assert len(shown.axes[0].lines) == 5  # two nudges with and without noise, and chance
    curves = figures.noise_while_training(relaxation_stores())
    assert [ax.get_title() for ax in curves.axes] == ["nudge β = 0.1", "nudge β = 0.4"]
    assert [len(ax.lines) for ax in curves.axes] == [11, 16]  # five seeds a noise, and chance
    assert figures.noise_while_training({}).axes[0].texts[0].get_text() == "nothing of this has been computed yet"
    plt.close("all")


@pytest.mark.filterwarnings("ignore:the fast engines")
def test_training_with_an_optimiser_that_is_interrupted_begins_anew(tmp_path, monkeypatch):
    """Its moments are not kept, and a half of a training without them would be another training."""
    whole = epkit.run(TINY, tmp_path / "whole.nc")
    monkeypatch.setattr(ensemble, "KEEP_EVERY", 0.0)
    seen = []

    def stop(images):
        seen.append(images)
        if sum(seen) > 64:
            raise KeyboardInterrupt

    task = {"rates": whole.rate.values[0, 0].tolist(), "checkpoint": tmp_path / "a.checkpoint"}
    parameters = epkit.validation.validated(epkit.sweep.parameters.Sweep, TINY)
    group = list(epkit.sweep.grid.run_ids(parameters))
    with pytest.raises(KeyboardInterrupt):
        ensemble.trained(parameters, group, progress=stop, **task)
    assert not (tmp_path / "a.checkpoint").exists()
