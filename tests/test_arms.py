"""What notebook 12 asks of its stores, on synthetic ones whose answers are planted."""

import numpy as np
import xarray as xr
from synthetic import recorded, store

from epkit import study
from epkit.study import arms


def errors(values, sigmas=(1e-4,), rates=(0.1,), dataset="mnist", **facts):
    """A store with these test errors after training, (learning_rate, sigma, seed)."""
    values = np.asarray(values, dtype=float)
    ds = store((dataset,), rates, sigmas=sigmas, seeds=values.shape[-1], epochs=2, noise=0.0)
    shape = (1, len(rates), 1, 1, len(sigmas), values.shape[-1])
    last = np.broadcast_to(values, shape[1:2] + shape[4:]).reshape(shape)
    ds["test_error"] = ds.test_error.where(ds.epoch < 2, xr.DataArray(last, dims=ds.test_error.dims[:-1]))
    return recorded(ds, learning_rate=list(rates), sigma=list(sigmas), **facts)


LUCK = np.array([0.0, 0.1, -0.05, 0.03])  # of the seeds
SIGMAS = (5e-5, 1e-4)


def arm_stores():
    """Noise of both sigmas gains 20 points; its parts, and other ways, so much of it."""
    quiet, noisy = 0.6 + LUCK, 0.4 + LUCK
    until, only = {"rule": "until", "images": 7000}, {"sigmas": SIGMAS}
    return {
        "none": errors(quiet, (0.0,)),
        "all": errors(noisy, SIGMAS),
        "reads-1": errors(noisy + 0.01, **only, schedule={"layers": [1]}),
        "reads-2": errors(quiet - 0.02, **only, schedule={"layers": [2]}),
        "first": errors(noisy - 0.03, **only, schedule=until),
        "still": errors(np.add.outer([0.5, 0.3], LUCK), (0.0, 1e-4), bias_rate=0.0),
        "raised": errors(quiet - 0.04, (0.0,), variant="raised"),
        "updates": errors(quiet - 0.05, **only, schedule={"updates": [1]}),
        "biases": errors(quiet - 0.06, **only, schedule={"updates": ["biases"]}),
        "leaky": errors(np.add.outer([0.6, 0.5, 0.45], LUCK), (0.0, *SIGMAS), variant="leaky"),
        "exponential": errors(np.add.outer([0.5, 0.44], LUCK[:3]), (0.0, 1e-4), variant="exponential"),
        "warm-1": errors(quiet - 0.3, (0.0,), warm_up=1750),
        "warm-2": errors(quiet - 0.1, (0.0,), warm_up=7000),
    }


def test_arms_are_named_by_what_their_stores_record():
    named = {name: arms.arm(ds) for name, ds in arm_stores().items()}
    assert named == {
        "none": "no noise", "all": "noise in all reads", "reads-1": "noise in the reads of layer 1",
        "reads-2": "noise in the reads of layer 2", "first": "noise until 7,000 images",
        "still": "biases that do not learn", "raised": "raised network", "updates": "noise in the update of W1",
        "biases": "noise in the update of the biases", "leaky": "leaky network", "exponential": "exponential network",
        "warm-1": "warm-up of 1,750 images", "warm-2": "warm-up of 7,000 images",
    }  # fmt: skip
    both = errors(LUCK, schedule={"layers": [2, 3], "rule": "after", "images": 9}, bias_rate=0.0)
    assert arms.arm(both) == "noise in the reads of layer 2, 3, after 9 images, biases that do not learn"


def test_differences_of_arms_are_paired_over_seeds():
    """The luck of the seeds drops out, to the last digit."""
    effects = arms.arm_effects(arm_stores())
    expected = {
        "layer_1": [-0.01] * 2, "other_layers": [0.02] * 2, "updates": [0.05] * 2 + [0.06] * 2, "still_biases": [0.1],
        "larger": [0.04], "unclamped": [0.06], "leaky": [0.1, 0.15], "early": [0.03] * 2, "warm_up": [-0.1],
    }  # fmt: skip
    assert set(effects) == set(expected) == set(study.registered_claims().later["12_why_noise_helps"].claims)
    for name, (values, reason, _) in effects.items():
        assert (reason == "").all(), name
        np.testing.assert_allclose(values.mean("seed"), expected[name], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(values.std("seed"), 0, atol=1e-12, err_msg=name)
    labels = effects["layer_1"].values.dataset.values.tolist()
    assert labels == [f"MNIST, noise in the reads of layer 1, η = 0.1, σ = {s} V" for s in ("5e-05", "0.0001")]
    assert effects["still_biases"].values.dataset.item() == "MNIST, biases that do not learn, η = 0.1"


def test_arms_with_fewer_seeds_are_compared_on_those_alone():
    effect = arms.arm_effects(arm_stores() | {"updates": errors(0.5 + LUCK[:2], schedule={"updates": [1]})})["updates"]
    of_w1 = effect.values.sel(dataset=[name for name in effect.values.dataset.values if "W1" in name])
    np.testing.assert_allclose(of_w1.dropna("seed"), 0.1)
    assert of_w1.count() == 2
    few = arms.arm_effects(arm_stores() | {"updates": errors(0.5 + LUCK[:1], schedule={"updates": [1]})})["updates"]
    reasons = dict(zip(few.values.dataset.values.tolist(), few.reason.values.tolist(), strict=True))
    assert [reason for name, reason in reasons.items() if "W1" in name] == ["1 of 1 seeds have it"]


def test_missing_arms_are_not_testable():
    effects = arms.arm_effects({"none": arm_stores()["none"]})
    for name, (values, reason, _) in effects.items():
        assert reason.values.tolist() == ["no such setting"], name
        assert values.isnull().all()


def test_the_warm_up_of_each_seed_is_the_choice_of_the_others():
    random = np.random.default_rng(3)
    warm, noisy = random.uniform(0.2, 0.8, (3, 6)), random.uniform(0.2, 0.8, (2, 6))
    stores = {f"warm-{k}": errors(values, (0.0,), warm_up=1000 * (k + 1)) for k, values in enumerate(warm)}
    found = arms.arm_effects(stores | {"all": errors(noisy[None], SIGMAS)})["warm_up"]
    expected = []
    for seed in range(6):
        others = [k for k in range(6) if k != seed]
        best = [values[values[:, others].mean(1).argmin(), seed] for values in (warm, noisy)]
        expected.append(best[0] - best[1])
    np.testing.assert_allclose(found.values[0], expected)
    cheating = warm.min(0) - noisy.min(0)
    assert not np.allclose(expected, cheating)


def test_the_table_of_arms_says_what_the_stores_hold():
    table = arms.arm_table({name: arm_stores()[name] for name in ("none", "still")}).set_index(["arm", "σ (V)"])
    assert table["n"].tolist() == [4, 4, 4]
    assert table["error (%)"]["no noise", "0"].startswith("62.0 [")
    assert table["error (%)"]["biases that do not learn", "0.0001"].startswith("32.0 [")
    assert table["stuck (%)"]["no noise", "0"].startswith("0 [")
