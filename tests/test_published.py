"""What notebooks 13 and 19 ask of the published network's arms, on synthetic stores whose answers are planted."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from synthetic import recorded, store

from epkit import figures, study

NOISE = 5e-5


def falls(to, at, sigmas=(0.0,), epochs=4, **facts):
    """A store whose error of three seeds falls from 0.9 to about `to` in the given record of each sigma."""
    ds = store(("mnist",), sigmas=sigmas, seeds=3, epochs=epochs, noise=0.0)
    until = xr.DataArray(np.broadcast_to(at, len(sigmas)), dims="sigma")
    luck = xr.DataArray([0.0, 0.01, 0.02], dims="seed")
    error = xr.where(ds.epoch >= until, to + luck, 0.9).broadcast_like(ds.test_error)
    ds["test_error"] = error.transpose(*ds.test_error.dims)
    return recorded(ds, train_images=1000, sigma=list(sigmas), **facts)


def earlier():
    """Without noise the error falls in the fourth record, with noise in the second; and other trainings."""
    first = falls(0.1, (4, 2), (0.0, NOISE))
    return {
        "first": first,
        "long": falls(0.1, (6, 3), (0.0, NOISE), epochs=8),
        "longer": recorded(falls(0.1, (1, 1), (0.0, NOISE), epochs=9), batch_size=4),  # another training
    }


def changed():
    return {
        "reads-1": falls(0.1, 2, (NOISE,), schedule={"layers": [1]}),
        "reads-234": falls(0.1, 5, (NOISE,), schedule={"layers": [2, 3, 4]}),
        "still": falls(0.3, 3, bias_rate=0.0),
        "raised": falls(0.1, 5, variant="raised"),
        "warm": falls(0.1, 5, warm_up=100),
        "other": falls(0.1, 1, warm_up=100, beta=0.1),
    }


def test_noise_that_ends_is_compared_with_longer_training_that_is_else_the_same():
    short = falls(0.05, 2, (NOISE,), schedule={"rule": "until", "images": 2000})
    arms = study.published_arms(earlier(), {"short": short, "other": changed()["other"]})
    ((title, of_set),) = arms.items()
    assert list(of_set) == ["no noise", "noise throughout", "noise until 2,000 images"]
    effects = study.switched_off_effects(arms)
    np.testing.assert_allclose(effects["off_beats_none"].values.squeeze(), [0.85, 0.84, 0.83])  # of 0.9, until 6,000
    np.testing.assert_allclose(effects["off_beats_noise"].values.squeeze(), 0.05)
    table = study.switched_off_table(arms)
    assert table.index.tolist() == [1000, 2000, 3000, 4000]
    assert table.columns.tolist() == [(title, "no noise"), (title, "noise throughout")]
    assert table.iloc[-1, 0] == "84 [81.5, 86.5], n = 3"  # points
    nothing = study.switched_off_effects(study.published_arms({}, {"short": short}))
    assert nothing["off_beats_noise"].reason.item() == "no such setting"


def test_the_planted_answers_are_read():
    arms = study.published_arms({"first": earlier()["first"]}, changed())
    effects = study.changed_effects(arms)
    claims = study.registered_claims().later["19_what_shortens_the_plateau"].claims
    assert set(effects) == set(claims)
    saved = {name: effect.values.mean("seed").item() for name, effect in effects.items()}
    assert saved == pytest.approx({
        "layer_1": 0.0, "other_layers": -0.79, "still_biases": -0.2, "larger": -0.79, "warm_up": -0.79
    })  # fmt: skip
    table = study.changed_table(arms).set_index("arm")
    assert table["left chance"].to_dict() == {
        "no noise": "3 of 3", "noise throughout": "3 of 3", "noise in the reads of layer 1": "3 of 3",
        "noise in the reads of layer 2, 3, 4": "0 of 3", "biases that do not learn": "3 of 3",
        "raised network": "0 of 3", "warm-up of 100 images": "0 of 3",
    }  # fmt: skip
    assert table["after images (median)"].tolist() == ["4,000", "2,000", "2,000", "", "3,000", "", ""]
    assert table.loc["biases that do not learn", ["error (%)", "points saved"]].tolist() == [
        "31.0 [28.5, 33.5]", "-20.0 [-20.0, -20.0]"
    ]  # fmt: skip


def test_a_claim_without_an_arm_is_not_testable():
    claims = study.registered_claims().later["19_what_shortens_the_plateau"].claims
    arms = study.published_arms(earlier(), {"still": changed()["still"]})
    verdicts = study.family_verdicts(study.family_rows(study.changed_effects(arms), claims), claims).verdict
    assert verdicts.drop("still_biases").eq("not testable").all()
    assert verdicts["still_biases"] != "not testable"


def test_the_figure_shows_every_arm_of_every_seed():
    stores = {name: ds for name, ds in changed().items() if name != "other"}
    arms = study.published_arms({"first": earlier()["first"]}, stores)
    figure = figures.arms_over_images(arms, stores, "Arms")
    ax, (legend,) = figure.axes[0], figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(arms["MNIST"])
    assert len(ax.lines) >= 7 * (3 + 1)
    plt.close(figure)
    plt.close(figures.arms_over_images({}, {}, "Nothing yet"))
