"""A synthetic store with planted answers, shaped as the data contract of `epkit.analysis` says."""

import json

import numpy as np
import xarray as xr

CHANCE = {"mnist": 0.8865, "kmnist_t10k_split": 0.9, "fashion_mnist": 0.9}
TITLES = {"mnist": "MNIST", "kmnist_t10k_split": "KMNIST (t10k split)", "fashion_mnist": "FashionMNIST"}
SIGMAS = (0.0, *np.round(np.logspace(-6, -2, 13), 12))


def store(
    datasets=("mnist",),
    rates=(0.02,),
    averaging=("shortcut",),
    samples=(1,),
    sigmas=SIGMAS,
    seeds=5,
    epochs=4,
    limit=2e-4,
    exponent=0.5,
    spread=0.1,
    floor=0.05,
    benefit=0.0,
    width=0.25,
    noise=0.003,
    rng=0,
    looks=False,
):
    """Logistic errors: sigma_c = limit * N**exponent * exp(spread * z), z ~ N(0, 1) one a seed.

    The error falls from floor + benefit at sigma = 0 to floor above 3e-6, and crosses half way between floor
    and chance at sigma_c, in natural logs over `width`. `looks`: with validation error and a look at each layer.
    """
    generator = np.random.default_rng(rng)
    coords = {
        "dataset": list(datasets),
        "learning_rate": list(rates),
        "averaging": list(averaging),
        "samples": list(samples),
        "sigma": np.array(sigmas),
        "seed": np.arange(seeds),
        "epoch": np.arange(1, epochs + 1),
    }
    grid = xr.Dataset(coords=coords)
    chance = xr.DataArray([CHANCE[name] for name in datasets], dims="dataset")
    z = xr.DataArray(generator.standard_normal(seeds), dims="seed")
    centre = np.log(limit) + exponent * np.log(grid.samples) + spread * z
    with np.errstate(divide="ignore"):
        turn = 1 / (1 + np.exp(-(np.log(grid.sigma) - centre) / width))
    low = floor + benefit / (1 + (grid.sigma / 3e-6) ** 2)
    final = low + (chance - low) * turn
    shape = [len(values) for values in coords.values()]
    error = (final + (chance - final) * 0.6 * np.exp(-(grid.epoch - 1.0))).transpose(
        *[d for d in coords if d in ("dataset", "samples", "sigma", "seed", "epoch")]
    )
    error = error.where(grid.epoch < epochs, final).expand_dims(
        learning_rate=coords["learning_rate"], averaging=coords["averaging"]
    ).transpose(*coords)  # fmt: skip
    error = (error + noise * generator.standard_normal(shape)).clip(0, 1)
    layer = xr.DataArray(np.arange(1, 5), dims="layer", coords={"layer": np.arange(1, 5)})
    activity = (0.45 - 0.3 * (error - floor) * layer / 3).where(layer < 4)
    parameters = {
        "sizes": {"mnist": [784, 128, 128, 128, 10]}, "input_gain": 1100.0, "beta": 0.7, "iterations": 6,
        "batch_size": 8, "epochs": epochs, "train_images": 8000, "test_images": 2000,
    }  # fmt: skip
    ds = xr.Dataset(
        {
            "test_error": error,
            "train_error": (error * 0.9),
            "activity": activity,
            "conductance": activity * 0.01,
            "diverged": xr.zeros_like(error.isel(epoch=0, drop=True), dtype=bool),
            "chance": ("dataset", chance.values),
            "title": ("dataset", [TITLES[name] for name in datasets]),
        },
        coords={"dataset": list(datasets), "seed": np.arange(seeds)},
        attrs={"parameters": json.dumps(parameters)},
    )
    if looks:
        ds["validation_error"] = (error + noise * generator.standard_normal(shape)).clip(0, 1)
        scale = ds.layer * xr.ones_like(error)
        with np.errstate(divide="ignore"):
            ds["signal_to_noise"] = 1e-4 * scale / ds.sigma
        ds["response"], ds["conductance_sd"], ds["clamped"] = 1e-3 * scale, 0.02 * scale, 0.1 * scale
    return ds
