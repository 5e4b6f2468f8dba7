"""What notebook 18 asks of its stores, on synthetic ones with planted answers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from synthetic import store

from epkit import figures, study


def seeds_of(dataset, dead):
    """Twenty seeds without noise at three rates, of which so many stay at chance and the others err in a tenth."""
    ds = store(datasets=(dataset,), rates=(1.0, 2.0, 4.0), sigmas=(0.0,), seeds=20, epochs=1)
    for rate, count in enumerate(dead):
        ds["test_error"][0, rate] = np.where(np.arange(20) < count, 0.9, 0.1)[:, None]
    return ds


def paper_stores():
    sigmas = (0.0, *(1e-4 * np.logspace(-1.2, 1.2, 9)))
    return {
        "seeds-mnist": seeds_of("mnist", (20, 10, 0)),
        "seeds-fashion_mnist": seeds_of("fashion_mnist", (20, 16, 0)),
        "limit-mnist": store(sigmas=sigmas, limit=5e-5, spread=0.01, noise=0.0, epochs=1),
        "limit-fashion_mnist": store(("fashion_mnist",), sigmas=sigmas, limit=1.5e-4, spread=0.01, noise=0.0, epochs=1),
    }


def test_the_planted_answers_are_read():
    effects = study.reported_effects(paper_stores())
    claims = study.registered_claims().later["18_the_papers_numbers"].claims
    assert set(effects) == set(claims)
    np.testing.assert_allclose(effects["value"].values.mean("seed"), [5e-5, 1.5e-4], rtol=0.05)
    np.testing.assert_allclose(effects["datasets"].values, 1 / 3, rtol=0.05)
    np.testing.assert_allclose(effects["dead"].values.mean("seed"), [1, 0.5, 0, 1, 0.8, 0])
    # of .8 at a tenth and .2 at nine tenths right, .26 is reported
    assert effects["mixture"].values.mean("seed").values == pytest.approx([-0.16, 0.0, 0.64])
    verdicts = study.family_verdicts(study.family_rows(effects, claims), claims).verdict.to_dict()
    assert verdicts == {
        "value": "contradicted", "datasets": "contradicted", "dead": "supported", "mixture": "undecided",
    }  # fmt: skip


def test_seeds_that_were_not_run_count_nowhere():
    stores = paper_stores()
    ds = stores["seeds-mnist"]
    ds["test_error"][0, 0] = np.nan  # a rate that waits
    ds["test_error"][0, 1, ..., 15:, :] = np.nan
    quiet, noisy = study.quiet_and_noisy(stores)
    assert list(noisy) == ["limit-mnist", "limit-fashion_mnist"]
    table = study.reported_table(quiet)
    assert list(table.index[:2]) == ["MNIST, rates × 2", "MNIST, rates × 4"]
    assert table.loc["MNIST, rates × 2", ["seeds", "at chance (%)"]].tolist() == [15, "67 [42, 85]"]
    assert table.loc["FashionMNIST, rates × 2", "reported"] == "26"
    assert table.loc["FashionMNIST, rates × 1", "of those that learn"] == ""


def test_the_figure_shows_every_seed_and_what_is_reported():
    figures.style()
    panels = figures.quiet_seeds(study.quiet_and_noisy(paper_stores())[0]).axes
    assert [ax.get_title() for ax in panels] == ["MNIST", "FashionMNIST"]
    assert [len(line.get_xdata()) for line in panels[0].lines if line.get_marker() == "o"] == [20, 1] * 3
    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in panels]
    assert labels == [["chance"], ["chance", "reported without noise"]]
    assert figures.quiet_seeds({}).axes[0].texts[0].get_text() == "nothing of this has been computed yet"
    plt.close("all")
