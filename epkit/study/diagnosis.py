"""Why a network never learns: what a store knows of its layers, in words, and what usually helps.

The rules come from networks of scikit-learn's digits, 64-32-32-10, that learn with a gain of 100 V and a learning rate
of 0.05, and do not with a gain 200 times as large or small, or rates 10 to 1e10 times as large.
"""

import math
from itertools import pairwise

import numpy as np
import xarray as xr

from ..sweep.store import parameters
from .limit import final_error, half_way, training_steps

DEAD = 0.01  # share of a layer's units that conduct; those that learn keep at least 4 %, those trained too fast 0.4 %
MOVES_NOTHING = 1e-6  # response of a layer over that of the outputs; those that learn have 1e-4 and more
GROWN = 5.0  # mean conductance over that before training; those that learn have up to 4
FAR = 2.0  # cost (V²) after the first record: a gain that is too large starts at 4 and more, a low rate at 0.8
OUTPUTS_AT_ZERO = 0.5  # cost (V²) of outputs at 0 V, for targets of one 1 V and zeros

DIVERGED = (
    "every run diverged, which is a failure of the numerics and says nothing of the claim: lower the learning rate"
)


def all_diverged(ds: xr.Dataset) -> xr.DataArray:
    """Whether all runs that were made diverged, at every sigma and seed, over the other dims of the error."""
    diverged = ds.diverged == 1  # merging stores may have made it a float
    diverged = diverged.any("epoch") if "epoch" in diverged.dims else diverged
    ran = ds.test_error.notnull().any("epoch") | diverged
    return ran.any(["sigma", "seed"]) & (diverged | ~ran).all(["sigma", "seed"])


def diagnosis(ds: xr.Dataset) -> xr.DataArray:
    """For each setting of a store that never learns, why and what usually helps; "" where it learns or was not run.

    Over the dims of the error but sigma, seed and epoch. Read at the least sigma, as medians over seeds; the response
    to the nudge and the signal-to-noise ratio only where the store was computed with `looks`.
    """
    error = final_error(ds)
    half, failed = half_way(error, ds.chance), all_diverged(ds)
    ran = error.notnull().any(["sigma", "seed"])
    texts = xr.full_like(half, "", dtype=object)
    for place in np.ndindex(half.shape):
        point = dict(zip(half.dims, place, strict=True))
        if failed.isel(point):
            texts[point] = DIVERGED
        elif ran.isel(point) and half.isel(point).isnull():
            texts[point] = _reason(ds.isel({dim: at for dim, at in point.items() if dim in ds.dims}))
    return texts.drop_attrs().rename("diagnosis")


def _reason(ds: xr.Dataset) -> str:
    """The first of the rules that holds for a setting, over (sigma, seed, epoch[, layer])."""
    ds = ds.sortby("sigma").isel(sigma=0)
    last = {
        name: ds[name].isel(epoch=-1).median("seed")
        for name in ("activity", "response", "signal_to_noise", "conductance", "train_cost")
        if name in ds
    }
    if (dead := _layers(last["activity"] < DEAD)) if "activity" in last else "":
        return f"less than {DEAD:.0%} of the units of {dead} conduct after training: lower the learning rate"
    if "response" in last:
        response = last["response"]
        if still := _layers(response <= MOVES_NOTHING * response.isel(layer=-1)):
            return f"the nudge moves nothing in {still}: lower the learning rate"
    if "signal_to_noise" in last:
        noisy = last["signal_to_noise"] * math.sqrt(training_steps(ds)) < 1
        if ds.sigma > 0 and (drowned := _layers(noisy)):
            return f"noise exceeds the signal in {drowned} even at the least σ, {float(ds.sigma):g} V: sweep lower σ"
    if "conductance" in last:
        growth = last["conductance"] / _before_training(ds)
        if grown := _layers(growth > GROWN):
            return f"training has made {grown} conduct {float(growth.max()):.0f} times as well: lower the learning rate"
    if "train_cost" in last and last["train_cost"] > OUTPUTS_AT_ZERO:
        far = ds.train_cost.isel(epoch=0).median("seed") > FAR
        helps = "lower the gain" if far else "raise the learning rate or train for longer"
        return f"the outputs are farther from their targets than at 0 V: {helps}"
    return "no layer is dead, and the outputs do not tell the images apart: raise the gain or train for longer"


def _layers(flags: xr.DataArray) -> str:
    """ "layer 2", "layers 1, 3", or "" where no flag, over (layer,), is set."""
    numbers = [str(layer) for layer in flags.layer.values[flags.values]]
    return f"layer{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else ""


def _before_training(ds: xr.Dataset) -> xr.DataArray:
    """Mean conductance (S) of each layer of an untrained network: uniform in ±1/√n over its n inputs, none below 0."""
    sizes = next(iter(parameters(ds, "sizes")["sizes"].values()))
    inputs = [n_in for n_in, _ in pairwise((2 * sizes[0], *sizes[1:]))]
    return xr.DataArray([1 / (4 * math.sqrt(n_in)) for n_in in inputs], {"layer": ds.layer.values}, "layer")
