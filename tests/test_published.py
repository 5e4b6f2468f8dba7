"""What notebooks 13 and 19 to 21 ask of the published network's arms, on synthetic stores whose answers are planted."""

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
    return recorded(ds, **({"train_images": 1000, "sigma": list(sigmas)} | facts))


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
        "updates": falls(0.1, 5, (NOISE,), schedule={"updates": [1]}),
        "after": falls(0.2, 4, (NOISE,), schedule={"rule": "after", "images": 2000}),
        "exponential": falls(0.1, (2, 4), (0.0, NOISE), variant="exponential"),
        "leaky": falls(0.1, (5, 4), (0.0, NOISE), variant="leaky"),
        "other": falls(0.1, 1, warm_up=100, beta=0.1),
    }


def test_noise_that_ends_is_compared_with_longer_training_that_is_else_the_same():
    short = falls(0.05, 2, (NOISE,), schedule={"rule": "until", "images": 2000})
    arms = study.published_arms(earlier(), {"short": short, "other": changed()["other"]})
    ((title, of_set),) = arms.items()
    assert list(of_set) == ["no noise", "noise throughout", "noise until 2,000 images"]
    effects = study.published_effects(arms, "13_harnessing_noise")
    np.testing.assert_allclose(effects["off_beats_none"].values.squeeze(), [0.85, 0.84, 0.83])  # of 0.9, until 6,000
    np.testing.assert_allclose(effects["off_beats_noise"].values.squeeze(), 0.05)
    table = study.saved_table(arms)
    assert table.index.tolist() == [1000, 2000, 3000, 4000]
    assert table.columns.tolist() == [(title, "noise throughout"), (title, "noise until 2,000 images")]
    assert table.iloc[-1].tolist() == ["79 [76.5, 81.5], n = 3", "84 [81.5, 86.5], n = 3"]  # points
    nothing = study.published_effects(study.published_arms({}, {"short": short}), "13_harnessing_noise")
    assert nothing["off_beats_noise"].reason.item() == "no such setting"


def test_arms_of_different_runs_do_not_stand_side_by_side():
    """Their runs without noise are different."""
    first = falls(0.05, 2, (NOISE,), epochs=6, schedule={"rule": "until", "images": 2000}, test_images=500)
    runs = earlier() | {"tested": falls(0.1, (4, 2), (0.0, NOISE), epochs=8, test_images=500)}
    assert len(study.published_arms(runs, {"first": first})["MNIST"]) == 3
    with pytest.raises(ValueError, match="MNIST, warm-up of 100 images: is of another training"):
        study.published_arms(runs, {"first": first, "warm": changed()["warm"]})


def test_what_helps_early_and_what_it_costs_late_are_asked_apart():
    facts = {"train_images": 30_000, "rates": [0.1, 0.1]}
    growing, adaptive = {"rule": "growing", "images": 10}, {"rule": "adaptive", "images": 10, "bound": 1.0}
    stores = {
        "growing": falls(0.15, 2, (NOISE,), schedule=growing, **facts),
        "adaptive": falls(0.05, 3, (NOISE,), schedule=adaptive, **facts),
        "bold": falls(0.1, 5, warm_up=100, learning_rate=[2.0], **facts).assign_coords(learning_rate=[2.0]),
    }
    reads = xr.DataArray([1.0, 2.0, 4.0, 8.0], dims="epoch")
    stores["adaptive"]["reads"] = reads.broadcast_like(stores["adaptive"].test_error)
    arms = study.published_arms({"first": falls(0.1, (4, 2), (0.0, NOISE), **facts)}, stores)
    effects = study.published_effects(arms, "20_early_and_late")
    assert set(effects) == set(study.registered_claims().later["20_early_and_late"].claims)
    saved = {name: effect.values.mean("seed").item() for name, effect in effects.items()}
    assert saved == pytest.approx({
        "growing_early": 0.74, "growing_late": 0.05, "growing_beats_noise": -0.05,
        "adaptive_early": 0.0, "adaptive_late": -0.05, "adaptive_beats_noise": 0.05,
        "warm_up_early": 0.0, "warm_up_late": 0.79,
    })  # fmt: skip
    table = study.changed_table(arms).set_index("arm")
    assert table["N at the end"].to_dict() == {
        "no noise": "", "noise throughout": "", "growing N": "", "adaptive N, bound 1": "8",
        "warm-up of 100 images to 2 x the rates": "",
    }  # fmt: skip
    figure = figures.reads_over_images(arms, stores)
    (ax,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["adaptive N, bound 1"]
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), reads)
    plt.close(figure)


def test_arms_are_compared_as_far_as_both_have_been_trained_and_at_every_sigma():
    bold = {"train_images": 30_000, "rates": [0.1, 0.1], "learning_rate": [16.0], "warm_up": 100}
    plain = {"train_images": 30_000, "rates": [0.1, 0.1]}
    ends, adaptive = {"rule": "until", "images": 10}, {"rule": "adaptive", "images": 10, "bound": 1.0}
    stores = {
        "ended": falls(0.2, 2, (NOISE,), epochs=5, schedule=ends, **plain),
        "adaptive": falls(0.1, 2, (NOISE,), epochs=8, schedule=adaptive, **plain),
        "bold": falls(0.05, 2, epochs=8, **bold),
        "bold-noise": falls(0.02, (2, 4), (1e-5, NOISE), epochs=2, **bold),
        "bold-ended": falls(0.03, 2, (NOISE,), epochs=2, schedule=ends, **bold),
    }
    stores = {
        name: ds.assign_coords(learning_rate=[16.0]) if name.startswith("bold") else ds for name, ds in stores.items()
    }
    arms = study.published_arms({"long": falls(0.3, (6, 7), (0.0, NOISE), epochs=8, **plain)}, stores)
    effects = study.published_effects(arms, "21_bold_rates")
    assert set(effects) == set(study.registered_claims().later["21_bold_rates"].claims)
    saved = {name: effect.values.mean("seed").round(9).values.tolist() for name, effect in effects.items()}
    assert saved == {
        "bold_early": [0.84], "bold_beats_ended": [0.15], "bold_late": [-0.25], "bold_noise": [0.03, -0.84],
        "bold_ended": [0.02], "adaptive_late": [-0.2], "adaptive_beats_noise": [0.2], "bold_beats_adaptive": [0.05],
    }  # fmt: skip
    settings = effects["bold_noise"].values.dataset.values
    assert [name.rpartition(", ")[-1] for name in settings] == ["1e-05 V", "5e-05 V"]


def test_the_planted_answers_are_read():
    arms = study.published_arms({"first": earlier()["first"]}, changed())
    effects = study.published_effects(arms, "19_what_shortens_the_plateau")
    claims = study.registered_claims().later["19_what_shortens_the_plateau"].claims
    assert set(effects) == set(claims)
    saved = {name: effect.values.mean("seed").item() for name, effect in effects.items()}
    assert saved == pytest.approx({
        "layer_1": 0.0, "other_layers": -0.79, "still_biases": -0.2, "larger": -0.79, "warm_up": -0.79,
        "updates": -0.79, "after": -0.1, "unclamped": 0.0, "leaky": 0.79,
    })  # fmt: skip
    table = study.changed_table(arms).set_index("arm")
    assert table["left chance"].to_dict() == {
        "no noise": "3 of 3", "noise throughout": "3 of 3", "noise in the reads of layer 1": "3 of 3",
        "noise in the reads of layer 2, 3, 4": "0 of 3", "biases that do not learn": "3 of 3",
        "raised network": "0 of 3", "warm-up of 100 images": "0 of 3", "noise in the update of W1": "0 of 3",
        "noise after 2,000 images": "3 of 3", "exponential network, 0 V": "3 of 3",
        "exponential network, 5e-05 V": "3 of 3", "leaky network, 0 V": "0 of 3", "leaky network, 5e-05 V": "3 of 3",
    }  # fmt: skip
    assert table["after images (median)"].tolist() == [
        "4,000", "2,000", "2,000", "", "3,000", "", "", "", "4,000", "2,000", "4,000", "", "4,000"
    ]  # fmt: skip
    assert table.loc["biases that do not learn", ["error (%)", "points saved"]].tolist() == [
        "31.0 [28.5, 33.5]", "-20.0 [-20.0, -20.0]"
    ]  # fmt: skip


def test_a_claim_without_an_arm_is_not_testable():
    claims = study.registered_claims().later["19_what_shortens_the_plateau"].claims
    arms = study.published_arms(earlier(), {"still": changed()["still"]})
    effects = study.published_effects(arms, "19_what_shortens_the_plateau")
    verdicts = study.family_verdicts(study.family_rows(effects, claims), claims).verdict
    assert verdicts.drop("still_biases").eq("not testable").all()
    assert verdicts["still_biases"] != "not testable"


def test_the_figure_shows_every_arm_of_every_seed():
    stores = {name: ds for name, ds in changed().items() if name != "other"}
    arms = study.published_arms({"first": earlier()["first"]}, stores)
    figure = figures.arms_over_images(arms, stores, "Arms")
    ax, (legend,) = figure.axes[0], figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(arms["MNIST"])
    assert len(ax.lines) >= 7 * (3 + 1)
    looks = {(handle.get_color(), handle.get_linestyle()) for handle in legend.legend_handles}
    assert len(looks) == len(arms["MNIST"])  # more than there are colours
    plt.close(figure)
    for draw in (figures.arms_over_images, figures.points_saved):
        plt.close(draw({}, {}, "Nothing yet"))


def test_points_saved_are_those_of_the_table():
    stores = {name: ds for name, ds in changed().items() if name != "other"}
    arms = study.published_arms({"first": earlier()["first"]}, stores)
    figure = figures.points_saved(arms, stores, "Saved")
    ax, table = figure.axes[0], study.changed_table(arms).set_index("arm")["points saved"]
    means = [line for line in ax.lines if line.get_marker() == "o"]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == [name for name in arms["MNIST"] if name != "no noise"]
    assert any(f"noise: {NOISE:g} V; against" in text.get_text() for text in figure.texts)
    for name, line in zip(names, means, strict=True):
        assert table[name].startswith(f"{100 * float(line.get_xdata()[0]):.1f} ")
    plt.close(figure)
