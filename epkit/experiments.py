"""The memoised sweep: from validated parameters to a store.

A sweep is the grid of its list-valued parameters. Each point of the grid is a run, named by a hash of everything that
its numbers depend on; only the runs that neither the store nor an earlier, interrupted attempt holds are computed.
Runs that share data set, seed and read-outs are trained together as the members of one ensemble (a group), on the same
batches and the same standard-normal numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout
from tqdm import auto, std

from . import datasets, ensembles, store
from .ensembles import Point
from .parameters import Mechanism, Network, ParameterError, Sweep, validated

# Part of every run's hash: raise it when the same parameters must give other numbers than before.
RESULTS_VERSION = 1

# In a notebook a bar is a widget; where papermill's caller watches from a terminal (`epkit.execute`), it is text.
progress_bar = std.tqdm if os.environ.get("EPKIT_TERMINAL") else auto.tqdm

ATTRIBUTES: dict[str, dict[str, str]] = {
    "test_error": {"units": "1", "long_name": "share of test images classified wrongly"},
    "train_error": {"units": "1", "long_name": "share of training images classified wrongly, before each update"},
    "train_cost": {"units": "V2", "long_name": "mean of 1/2 |v_L - target|^2 over training images, before each update"},
    "activity": {"units": "1", "long_name": "share of diode units that conduct, mean over test images"},
    "conductance": {"units": "S", "long_name": "mean conductance of a layer"},
    "diverged": {"units": "1", "long_name": "some parameter is no longer finite"},
    "response": {"units": "V", "long_name": "rms of what the nudge moves, upper phase minus lower"},
    "signal_to_noise": {"units": "1", "long_name": "rms of the gradient estimate over rms of the noise in it"},
    "conductance_sd": {"units": "S", "long_name": "standard deviation of a layer's conductances"},
    "clamped": {"units": "1", "long_name": "share of a layer's conductances at 0"},
    "wall_time": {"units": "s", "long_name": "computing time, the ensemble's shared equally among its members"},
    "run": {"long_name": "hash of all that the run depends on"},
    "rate": {"units": "1", "long_name": "learning rate of each layer in the first epoch"},
    "chance": {"units": "1", "long_name": "test error of always naming the commonest class"},
    "image": {"units": "1", "long_name": "first training image of each class"},
}


def run(parameters: Sweep | Mapping[str, object], path: str | Path, *, device: str = "cpu") -> xr.Dataset:
    """The runs of a sweep: read from the store where it has them, computed where it doesn't.

    With a complete store this only reads. Otherwise groups of missing runs are trained one after the other under a
    progress bar, each kept in a file of its own as soon as it is done, and merged into the store at the end; an
    interrupted call goes on where it stopped and ends with the same numbers.

    Args:
        parameters: a `Sweep`, or values for one.
        path: the netCDF store; what isn't merged yet lies beside it in `<name>.parts/`.
        device: where torch computes; not part of the parameters.

    Returns:
        Dataset over (dataset, learning_rate, averaging, samples, sigma, seed, epoch[, layer]): test_error,
        train_error, train_cost (V^2), activity, conductance (S), diverged, wall_time (s), run (hash);
        rate (dataset, learning_rate, layer); chance and title (dataset); image (dataset, class_number, row, column).

    Raises:
        ParameterError: before any work. datasets.DataUnavailable: before any training.
        store.StoreError: when the store can't be written.
    """
    sweep = parameters if isinstance(parameters, Sweep) else validated(Sweep, parameters)
    for name in sweep.dataset:
        check_size(sweep, name)
    path = Path(path)
    if (known := holding(path, sweep)) is not None:
        return known

    ids = _run_ids(sweep)
    points = list(ids)
    with only_one_computing(path):
        if (known := holding(path, sweep)) is not None:
            return known
        parts = path.with_suffix(".parts")
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink()
        # Neighbouring stores of the profile may hold the same runs for another figure.
        finished = _finished({path, *parts.glob("*.nc"), *path.parent.glob("*.nc")})
        missing = [p for p in points if ids[p] not in finished]
        # Here, not by each ensemble: another machine's might differ in the last bit.
        rates = {name: ensembles.layer_rates(sweep, name, device) for name in sweep.dataset}
        images = ensembles.images_a_run(sweep)
        with progress_bar(total=len(missing) * images, unit="image", unit_scale=True, desc=path.stem) as bar:
            for group in _groups(missing):
                bar.set_postfix_str(f"{len(points) - len(missing)} of {len(points)} runs done")
                of_group = [ids[p] for p in group]
                file = parts / f"{store.digest(''.join(of_group))[:20]}.nc"
                checkpoint = file.with_suffix(".checkpoint")
                part = ensembles.trained(
                    sweep, group, rates[group[0].dataset], device=device, checkpoint=checkpoint, progress=bar.update
                )
                part["run"] = "member", of_group
                store.write(part, file)
                checkpoint.unlink(missing_ok=True)
                finished |= _runs(part)
                missing = [p for p in missing if p not in group]
        merged = _merged(sweep, [finished[ids[p]] for p in points], rates)
        store.write(merged, path)
        shutil.rmtree(parts, ignore_errors=True)
    return store.read(path)


def _axis(sweep: Sweep, name: str) -> list:
    return list(range(sweep.seeds)) if name == "seed" else getattr(sweep, name)


def settings(network: Sweep | Mechanism) -> dict[str, object]:
    """The parameters as a store records them, with the layer sizes that they amount to."""
    names = network.dataset if isinstance(network.dataset, list) else [network.dataset]
    return network.model_dump(mode="json", exclude_none=True) | {
        "sizes": {name: list(ensembles.layer_sizes(network, name)) for name in names}
    }


def _run_ids(sweep: Sweep) -> dict[Point, str]:
    """Every run of the grid with the hash of all that its numbers depend on: parameters, data, and their meaning."""
    shared = sweep.model_dump(include=set(Network.model_fields), exclude_none=True) | {"version": RESULTS_VERSION}
    data = {name: datasets.checksum(name) for name in sweep.dataset}
    points = [Point(*p) for p in itertools.product(*(_axis(sweep, axis) for axis in Point._fields))]
    facts = [shared | point._asdict() | {"data": data[point.dataset]} for point in points]
    return {p: store.digest(json.dumps(f, sort_keys=True))[:20] for p, f in zip(points, facts, strict=True)}


def check_size(network: Network, name: str) -> None:
    info = datasets.INFO[name]
    for field, most in (("train_images", info.n_train), ("test_images", info.n_test)):
        if (wanted := getattr(network, field)) > most:
            raise ParameterError(f"parameters: {field} = {wanted}: {info.title} allows 1 to {most}")
    if network.batch_size > network.train_images:
        raise ParameterError(f"parameters: batch_size = {network.batch_size}: allowed are 1 to train_images")


def holding(path: Path, parameters: Sweep | Mechanism) -> xr.Dataset | None:
    """The store, if it is sound and holds exactly this experiment; else None."""
    known = store.read_if_sound(path)
    if known is None or store.parameters(known) != settings(parameters):
        return None
    if isinstance(parameters, Sweep) and list(known["run"].values.flat) != list(_run_ids(parameters).values()):
        return None
    return known


@contextmanager
def only_one_computing(path: Path) -> Iterator[None]:
    """Wait until no other process computes this store; StoreError if nothing can be written beside it.

    The system lifts the lock of a process that ends, however it ends: the file that stays says nothing.
    """
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name} is being computed by another process; waiting for it", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        raise store.StoreError(f"{path}: cannot be written ({error.strerror}), and is not complete") from error
    try:
        yield
    finally:
        lock.release()


def _groups(points: list[Point]) -> list[list[Point]]:
    """Runs to train as one ensemble: those that share data set, read-outs and seed, so also batches and noise."""

    def shared(point: Point) -> tuple:
        return point.dataset, point.averaging, point.samples, point.seed

    return [list(group) for _, group in itertools.groupby(sorted(points, key=shared), key=shared)]


def _finished(paths: set[Path]) -> dict[str, xr.Dataset]:
    """Every run that some sound file holds, by its hash."""
    runs: dict[str, xr.Dataset] = {}
    for path in sorted(paths):
        if (known := store.read_if_sound(path)) is not None and "run" in known:
            runs |= _runs(known)
    return runs


def _runs(known: xr.Dataset) -> dict[str, xr.Dataset]:
    """The runs of a part (over `member`) or of a store (over the grid), by their hash."""
    flat = known[[name for name, v in known.data_vars.items() if {"member", "seed"} & set(v.dims)]]
    if "seed" in flat.dims:
        flat = flat.stack(member=Point._fields, create_index=False)
    flat = flat.drop_vars([name for name in flat.coords if name not in ("epoch", "layer")])
    return {str(name): flat.isel(member=k) for k, name in enumerate(flat["run"].values)}


def _merged(
    sweep: Sweep,
    runs: list[xr.Dataset],
    rates: Mapping[str, list[float]],
) -> xr.Dataset:
    """The store: the runs, in the order of the grid, as one labelled Dataset."""
    axes = {axis: _axis(sweep, axis) for axis in Point._fields}
    shape = [len(values) for values in axes.values()]
    flat = xr.concat(runs, "member", join="exact")
    grid = xr.Dataset(
        {
            name: ((*axes, *v.dims[1:]), v.values.reshape(*shape, *v.shape[1:]), ATTRIBUTES[str(name)])
            for name, v in flat.transpose("member", ...).data_vars.items()
        },
        coords={**axes, "epoch": flat.epoch, "layer": flat.layer},
    )
    grid["rate"] = (
        ("dataset", "learning_rate", "layer"),
        np.stack([np.outer(sweep.learning_rate, rates[name]) for name in sweep.dataset]),
        ATTRIBUTES["rate"],
    )
    data = {name: ensembles.data(name, sweep.train_images, sweep.test_images) for name in sweep.dataset}
    commonest = [np.bincount(data[name].y_test).max() / len(data[name].y_test) for name in sweep.dataset]
    grid["chance"] = "dataset", 1 - np.array(commonest), ATTRIBUTES["chance"]
    grid["title"] = "dataset", [datasets.INFO[name].title for name in sweep.dataset]
    samples = [_one_of_each_class(name, data[name]) for name in sweep.dataset]
    grid["image"] = xr.concat(samples, "dataset", join="outer")
    grid["sigma"].attrs = {"units": "V", "long_name": "read-out uncertainty (standard deviation of one read-out)"}
    grid["samples"].attrs = {"units": "1", "long_name": "read-outs averaged, N"}
    grid["learning_rate"].attrs = {"units": "1", "long_name": "relative learning rate, eta"}
    checksums = {name: datasets.checksum(name) for name in sweep.dataset}
    title = "Error of networks trained by Equilibrium Propagation under read-out uncertainty"
    return grid.assign_attrs(store.provenance(title, settings(sweep), checksums))


def _one_of_each_class(name: str, data: datasets.Split) -> xr.DataArray:
    """The first training image of each class, for a figure that needs no data set."""
    first = [int((data.y_train == label).nonzero()[0]) for label in range(10)]
    images = data.x_train[first].unflatten(1, datasets.INFO[name].shape).numpy()
    coords = {axis: np.arange(n) for axis, n in zip(("class_number", "row", "column"), images.shape, strict=True)}
    return xr.DataArray(images, coords, name="image", attrs=ATTRIBUTES["image"])
