"""A synthetic store with planted answers, shaped as the data contract of `epkit.study.limit` says."""

import json

import numpy as np
import xarray as xr

from epkit import study
from epkit.study import law

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
    epochs=10,
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
    parameters = study.registered_claims().limit.trained.model_dump(exclude_none=True) | {
        "sizes": {"mnist": [784, 128, 128, 128, 10]}, "epochs": epochs,
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


def architecture():
    """Stores of eleven networks with limits of twice what their weakest untrained layer responds, and those responses.

    The widest never learns, and the gain of 3000 has its limit above the sweep.
    """
    base = {"hidden": [128, 128, 128], "input_gain": 1100.0, "beta": 0.7, "train_images": 7000, "looks": 1}
    depth, width = (
        {f"{name}-{n}": n for n in ns} for name, ns in (("depth", (1, 2, 3, 4)), ("width", (64, 128, 1024)))
    )
    varied = {
        **{name: {"hidden": [128] * n, "limit": 4e-3 / 5**n} for name, n in depth.items()},
        **{name: {"hidden": [n] * 3, "limit": 4e-3 / n} for name, n in width.items()},
        **{f"gain-{a}": {"input_gain": float(a), "limit": 2e-7 * a} for a in (300, 1100, 3000)},
        "published-784-100-10": {"hidden": [100], "input_gain": 100.0, "limit": 6e-3},
    }
    stores, responses = {}, []
    for number, (name, given) in enumerate(varied.items()):
        limit = given["limit"]
        sigmas = (0.0, *(limit * np.logspace(-1.5, -0.5 if name == "gain-3000" else 1, 9)))
        ds = store(sigmas=sigmas, limit=limit, epochs=4, rng=number, floor=0.87 if name == "width-1024" else 0.05)
        facts = json.loads(ds.attrs["parameters"]) | base | {k: v for k, v in given.items() if k != "limit"}
        facts["sizes"] = {"mnist": [784, *facts["hidden"], 10]}
        ds["run"] = ds.diverged.astype(str) + f" {number}"
        stores[name] = ds.assign_attrs(parameters=json.dumps(facts))
        layers = np.arange(1, len(facts["hidden"]) + 2)
        response = np.outer(1.1 ** np.arange(-2, 3), limit / 2 * 6.0 ** (layers - 1))
        responses.append(xr.Dataset({"response": (("seed", "layer"), response)}, {"layer": layers, "seed": range(5)}))
    return stores, xr.concat(responses, xr.Variable("network", list(stores)), join="outer")


def plateau(sigmas=(0.0, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4), seeds=3, looks=12, best=5e-5, dtype="float32", rng=0):
    """One epoch of a network that escapes from chance, soonest at `best`, and not at all at sigma = 0 with seed 0."""
    generator = np.random.default_rng(rng)
    ds = store(sigmas=sigmas, seeds=seeds, epochs=looks).isel(layer=slice(4))
    ds = ds.assign_coords(epoch=np.arange(1, looks + 1) / looks)
    near = xr.DataArray(np.exp(-(np.log10((ds.sigma.values + 2e-6) / best) ** 2)), dims="sigma")
    start = 62000 - 45000 * near + xr.DataArray(4000 * generator.standard_normal(seeds), dims="seed")
    start[sigmas.index(0.0), 0] = np.inf
    error = ds.chance - 0.85 * (1 - np.exp(-(ds.epoch * 60000 - start).clip(0) / 20000))
    error = error + 0.005 * xr.DataArray(generator.standard_normal(error.shape), dims=error.dims)
    ds["test_error"] = error.broadcast_like(ds.test_error).transpose(*ds.test_error.dims)
    size = ds.test_error * xr.DataArray(10.0 ** np.arange(4), dims="layer", coords={"layer": ds.layer})
    ds["response"], ds["conductance"] = 1e-5 * size, 0.01 / (0.2 + size) + 20 * ds.sigma * ds.epoch
    ds["run"] = ds.diverged.astype(str)
    facts = study.registered_claims().escape.trained.model_dump(exclude_none=True)
    facts |= {"sizes": {"mnist": [784, 1024, 1024, 1024, 10]}, "looks": looks, "dtype": dtype}
    return ds.assign_attrs(parameters=json.dumps(facts))


def flat(values):
    """An error (sigma, seed) with these values at every sigma: (sigma,) or (sigma, seed)."""
    values = np.asarray(values, dtype=float)
    values = values if values.ndim == 2 else np.repeat(values[:, None], 4, axis=1)
    coords = {"sigma": np.array(SIGMAS), "seed": np.arange(values.shape[1])}
    return xr.DataArray(values, dims=("sigma", "seed"), coords=coords)


def limits_of(ds):
    return study.critical_limit(study.final_error(ds), ds.chance)


def only_half_way(patch):
    """Networks of a law have their limits by the definition that counts alone, which is a third of the work."""
    claims = study.registered_claims()
    second = claims.second.model_copy(update={"definitions": ["half way"]})
    patch.setattr(law, "registered_claims", lambda: claims.model_copy(update={"second": second}))


def recorded(ds, **facts):
    """With these among its parameters; None takes one out."""
    found = json.loads(ds.attrs["parameters"]) | facts
    return ds.assign_attrs(parameters=json.dumps({key: value for key, value in found.items() if value is not None}))
