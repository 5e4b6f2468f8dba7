"""Runs and the grid that they lie on: their hashes, which of them train together, and the labelled Dataset of all.

A sweep is the grid of its list-valued parameters. Each point of the grid is a run, named by a hash of everything that
its numbers depend on. Nothing here reads or writes a file.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from .. import data as datasets
from ..files import digest
from . import ensemble, store
from .ensemble import Physics
from .parameters import Network, Point, Sweep, settings

# Part of every run's hash: raise it when the same parameters must give other numbers than before.
RESULTS_VERSION = 1

ATTRIBUTES: dict[str, dict[str, str]] = {
    "test_error": {"units": "1", "long_name": "share of test images classified wrongly"},
    "validation_error": {"units": "1", "long_name": "share of validation images classified wrongly"},
    "train_error": {"units": "1", "long_name": "share of training images classified wrongly, before each update"},
    "train_cost": {"units": "V2", "long_name": "mean of 1/2 |v_L - target|^2 over training images, before each update"},
    "activity": {"units": "1", "long_name": "share of diode units that conduct, mean over test images"},
    "conductance": {"units": "S", "long_name": "mean conductance of a layer"},
    "diverged": {"units": "1", "long_name": "some parameter is no longer finite"},
    "response": {"units": "V", "long_name": "rms of what the nudge moves, upper phase minus lower"},
    "signal_to_noise": {"units": "1", "long_name": "rms of the gradient estimate over rms of the noise in it"},
    "conductance_sd": {"units": "S", "long_name": "standard deviation of a layer's conductances"},
    "clamped": {"units": "1", "long_name": "share of a layer's conductances at 0"},
    "reads": {"units": "1", "long_name": "read-outs averaged, N, mean since the last record"},
    "wall_time": {"units": "s", "long_name": "computing time, the ensemble's shared equally among its members"},
    "run": {"long_name": "hash of all that the run depends on"},
    "maker": {"units": "1", "long_name": "place in the attribute `makers`: what code, machine and engine made the run"},
    "sigma": {"units": "V", "long_name": "read-out uncertainty (standard deviation of one read-out)"},
    "samples": {"units": "1", "long_name": "read-outs averaged, N"},
    "learning_rate": {"units": "1", "long_name": "relative learning rate, eta"},
    "rate": {"units": "1", "long_name": "learning rate of each layer in the first epoch"},
    "chance": {"units": "1", "long_name": "test error of always naming the commonest class"},
    "image": {"units": "1", "long_name": "first training image of each class"},
}
# Variables without which a Dataset holds no runs.
RUN = {"test_error", "train_error", "train_cost", "activity", "conductance", "diverged", "wall_time", "run"}


def axis(sweep: Sweep, name: str) -> list:
    """The values of one dimension of the grid."""
    return sweep.seed_numbers if name == "seed" else getattr(sweep, name)


def run_ids(sweep: Sweep, physics: Physics | None = None) -> dict[Point, str]:
    """Every run of the grid with the hash of all that its numbers depend on: parameters, data, and their meaning."""
    shared = sweep.model_dump(include=set(Network.model_fields), exclude_none=True) | {"version": RESULTS_VERSION}
    shared |= (physics or ensemble.OWN).facts()
    data = {name: datasets.checksum(name) for name in sweep.dataset}
    points = [Point(*p) for p in itertools.product(*(axis(sweep, name) for name in Point._fields))]
    facts = [shared | point._asdict() | {"data": data[point.dataset]} for point in points]
    return {p: digest(json.dumps(f, sort_keys=True))[:20] for p, f in zip(points, facts, strict=True)}


def groups(sweep: Sweep, points: Sequence[Point], ids: Mapping[Point, str]) -> dict[str, list[Point]]:
    """Runs that train as one ensemble, by a hash: of one data set, read-out and seed, so also of batches and noise."""
    steps = sweep.readout is not None and sweep.readout.kind == "converter"  # members can't differ in them

    def shared(point: Point) -> tuple[str, str, int, int, float]:
        return point.dataset, point.averaging, point.samples, point.seed, point.sigma if steps else 0.0

    together = [list(group) for _, group in itertools.groupby(sorted(points, key=shared), key=shared)]
    return {digest("".join(ids[p] for p in group))[:20]: group for group in together}


def split(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """The runs of an ensemble (over `member`) or of a store (over the grid), by their hash, each with its maker."""
    if not set(ds.data_vars) >= RUN or not {"member", "seed"} & set(ds["run"].dims):
        return {}
    flat = ds[[name for name, v in ds.data_vars.items() if {"member", "seed"} & set(v.dims)]]
    if "seed" in flat.dims:
        flat = flat.stack(member=Point._fields, create_index=False)
    flat = flat.drop_vars([name for name in flat.coords if name not in ("epoch", "layer")])
    makers = store.makers(ds)
    numbers = flat["maker"].values.astype(int) if "maker" in flat else np.zeros(flat.sizes["member"], int)
    flat = flat.drop_vars("maker", errors="ignore")
    return {
        str(name): flat.isel(member=k).assign_attrs(maker=makers[numbers[k]])
        for k, name in enumerate(flat["run"].values)
        if name
    }


def merge(
    sweep: Sweep, physics: Physics, runs: Mapping[str, xr.Dataset], rates: Mapping[str, Sequence[float]]
) -> xr.Dataset:
    """The store: the runs, by their hash, in the order of the grid, as one labelled Dataset; NaN where some miss."""
    ids = run_ids(sweep, physics).values()
    any_run = next(iter(runs.values()))
    nothing = any_run.map(lambda v: xr.full_like(v, "") if v.dtype.kind in "OUT" else xr.full_like(v, np.nan, float))
    chosen = [runs.get(name, nothing) for name in ids]
    axes = {name: axis(sweep, name) for name in Point._fields}
    shape = [len(values) for values in axes.values()]
    flat = xr.concat(chosen, "member", join="exact", combine_attrs="drop")
    grid = xr.Dataset(
        {
            name: ((*axes, *v.dims[1:]), v.values.reshape(*shape, *v.shape[1:]), ATTRIBUTES.get(str(name), {}))
            for name, v in flat.transpose("member", ...).data_vars.items()
        },
        coords={**axes, "epoch": flat.epoch, "layer": flat.layer},
    )
    made_by = [run.attrs.get("maker", "") for run in chosen]
    makers = sorted(set(made_by) - {""})
    numbers = np.array([makers.index(maker) if maker else -1 for maker in made_by], np.int16)
    grid["maker"] = tuple(axes), numbers.reshape(shape), ATTRIBUTES["maker"]
    by_dataset = np.stack([np.outer(sweep.learning_rate, rates[name]) for name in sweep.dataset])
    grid["rate"] = ("dataset", "learning_rate", "layer"), by_dataset, ATTRIBUTES["rate"]
    for name in ("sigma", "samples", "learning_rate"):
        grid[name].attrs = ATTRIBUTES[name]
    checksums = {name: datasets.checksum(name) for name in sweep.dataset}
    title = "Error of networks trained by Equilibrium Propagation under read-out uncertainty"
    about = store.provenance(title, settings(sweep) | physics.facts(), checksums)
    return grid.merge(_images(sweep)).assign_attrs(about | {"makers": json.dumps(makers)})


def _images(sweep: Sweep) -> xr.Dataset:
    """What a store keeps of its data sets: chance, title, and a training image of each class, for figures."""
    commonest, samples = [], []
    for name in sweep.dataset:
        data = ensemble.data(sweep, name)
        commonest.append(np.bincount(data.test[1]).max() / sweep.test_images)
        x, y = data.train
        first = [int((y == label).nonzero()[0]) for label in y.unique().tolist()]
        images = x[first].unflatten(1, datasets.INFO[name].shape).numpy()
        coords = {axis: np.arange(n) for axis, n in zip(("class_number", "row", "column"), images.shape, strict=True)}
        samples.append(xr.DataArray(images, coords, name="image", attrs=ATTRIBUTES["image"]))
    columns = {
        "chance": ("dataset", 1 - np.array(commonest), ATTRIBUTES["chance"]),
        "title": ("dataset", [datasets.INFO[name].title for name in sweep.dataset]),
        "image": xr.concat(samples, "dataset", join="outer"),
    }
    return xr.Dataset(columns, {"dataset": sweep.dataset})
