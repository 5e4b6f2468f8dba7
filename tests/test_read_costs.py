"""What notebook 13 asks of its stores, on synthetic ones whose answers are planted."""

import numpy as np
import pytest
import xarray as xr
from synthetic import recorded, store

from epkit.study import budget

IMAGES = 1000


def curve(epochs_until, counts, rates=(0.02,), sigmas=(1e-3,), seeds=3, reads=None, epochs=10, **facts):
    """A store whose error falls from 0.5 to 0.1 in the record of the given epoch, of each rate and N."""
    ds = store(("mnist",), rates, samples=counts, sigmas=sigmas, seeds=seeds, epochs=epochs, noise=0.0)
    until = xr.DataArray(np.broadcast_to(epochs_until, (len(rates), len(counts))), dims=("learning_rate", "samples"))
    ds["test_error"] = xr.where(ds.epoch >= until, 0.1, 0.5).broadcast_like(ds.test_error).transpose(
        *ds.test_error.dims
    )  # fmt: skip
    if reads is not None:
        ds["reads"] = ds.test_error * 0 + xr.DataArray(reads, dims="epoch")
    return recorded(ds, train_images=IMAGES, sigma=list(sigmas), samples=list(counts), **facts)


QUIET = {"quiet": curve(1, (1,), sigmas=(0.0,))}


def test_a_constant_number_of_reads_costs_that_many_an_image():
    ds = curve([[3, 5]], (4, 64))
    costs = budget.costs(ds).squeeze()
    for count in (4, 64):
        np.testing.assert_array_equal(costs.sel(samples=count, seed=0), count * IMAGES * np.arange(1, 11))
    until = budget.reads_until(ds, 0.2).squeeze()
    np.testing.assert_array_equal(until.sel(seed=0), [4 * 3 * IMAGES, 64 * 5 * IMAGES])
    assert budget.reads_until(ds, 0.05).isnull().all()
    grown = np.arange(1.0, 11)
    ds = curve(4, (4,), reads=grown, schedule={"rule": "growing", "images": 1000})
    np.testing.assert_array_equal(budget.costs(ds).squeeze().sel(seed=0), IMAGES * grown.cumsum())
    assert budget.reads_until(ds, 0.2).squeeze()[0] == IMAGES * 10
    looked = curve(4, (4,)).assign_coords(epoch=np.arange(1, 11) / 2)
    np.testing.assert_array_equal(budget.costs(looked).squeeze()[0], 4 * IMAGES * np.arange(1, 11) / 2)


def test_runs_that_are_missing_cost_nothing_that_is_known():
    ds = curve(3, (4,))
    ds["test_error"] = ds.test_error.where(ds.seed != 1)
    costs = budget.costs(ds).squeeze()
    assert costs.sel(seed=1).isnull().all()
    assert budget.reads_until(ds, 0.2).isnull().sum() == 1
    assert budget.budget_table(QUIET | {"one": ds})["reads in all"].iloc[1] == "4e+04"


def test_labels_say_how_reads_follow_training():
    assert budget.label(QUIET["quiet"]) == "no noise"
    assert budget.label(curve(1, (4,))) == "constant N"
    assert budget.label(curve(1, (4,), schedule={"layers": [1]})) == "constant N"
    assert budget.label(curve(1, (4,), decay=0.75)) == "constant N, rates x0.75 an epoch"
    assert budget.label(curve(1, (4,), schedule={"rule": "adaptive", "images": 9, "bound": 2.0})) == (
        "adaptive N, bound 2"
    )


def test_the_target_is_the_error_without_noise_and_two_points():
    quiet = curve([[1], [10]], (1,), rates=(0.005, 0.02), sigmas=(0.0,))
    quiet["test_error"] = quiet.test_error + 0.1 * (quiet.learning_rate == 0.02)
    assert budget.targets({"quiet": quiet, "noisy": curve(1, (4,))}) == pytest.approx({"MNIST": 0.2 + budget.ABOVE})


def test_savings_are_those_over_the_best_constant():
    """3 epochs at N = 16 are the cheapest; N = 4 never arrives, and a schedule that arrives takes an eighth."""
    reads = np.where(np.arange(10) < 6, 1.0, 64.0)
    stores = QUIET | {
        "constant": curve([[99, 3, 2], [99, 9, 4]], (4, 16, 64), rates=(0.02, 0.05)),
        "growing": curve(6, (1,), reads=reads, schedule={"rule": "growing", "images": 9}),
        "never": curve(99, (1,), schedule={"rule": "doubling", "images": 9}),
    }
    best = budget.best_constants(stores)["MNIST"]
    assert (best.samples, best.learning_rate) == (16, 0.02)
    np.testing.assert_array_equal(best, 48 * IMAGES)
    values, reason, interval = budget.budget_effects(stores)["saving"]
    assert values.dataset.values.tolist() == [
        "MNIST, growing N, N = 1 at first, η = 0.02", "MNIST, doubling N, N = 1 at first, η = 0.02"
    ]  # fmt: skip
    assert reason.values.tolist() == ["", "0 of 3 seeds have it"]
    np.testing.assert_allclose(interval(values)["mean"][0], 8)
    table = budget.budget_table(stores)
    assert table["arrived"].tolist()[1:4] == ["0 of 3", "3 of 3", "3 of 3"]
    assert table["reads until the target"].tolist()[1] == "never"


def test_one_seed_that_never_arrives_leaves_a_saving_untestable():
    late = curve(6, (1,), reads=np.ones(10), schedule={"rule": "growing", "images": 9})
    late["test_error"] = late.test_error.where(late.seed != 2, 0.5)
    effect = budget.budget_effects(QUIET | {"constant": curve(3, (16,)), "growing": late})["saving"]
    assert effect.reason.values.tolist() == ["2 of 3 seeds have it"]
    lame = curve([[3, 2]], (16, 64))
    lame["test_error"] = lame.test_error.where((lame.seed != 2) | (lame.samples != 16), 0.5)
    assert budget.best_constants(QUIET | {"constant": lame})["MNIST"].samples == 64


@pytest.mark.parametrize("factor", [1, 2])
def test_reads_that_depend_on_n_over_eta_alone_are_invariant(factor):
    """(4 N, 4 eta) in a quarter of the images, or in half."""
    stores = QUIET | {"constant": curve([[8, 8], [1, 2 * factor]], (16, 64), rates=(0.005, 0.02))}
    values, reason, interval = budget.budget_effects(stores)["invariance"]
    assert values.dataset.values.tolist() == ["MNIST, N = 16, η = 0.005, against four times both"]
    assert reason.item() == ""
    assert interval(values)["mean"].item() == pytest.approx(factor)


def test_reads_that_become_exact_are_not_counted():
    assert set(budget.counted({"short": curve(1, (1,)), "never": curve(1, (1,), reads=[np.inf] * 10)})) == {"short"}
