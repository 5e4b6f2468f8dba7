"""From validated parameters to a store: the memoised sweep.

A sweep is the grid of its list-valued parameters. Each point of the grid is a run, named by a hash of everything that
its numbers depend on; only the runs that neither the store nor an earlier, interrupted attempt holds are computed.
Runs that share data set, seed and read-outs are trained together as the members of one ensemble (a group), on the same
batches and the same standard-normal numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from filelock import FileLock, Timeout
from tqdm import auto, std

from .. import data as datasets
from ..files import StoreError, digest
from . import ensemble, pool, store
from .parameters import Comparison, Mechanism, Network, Oracles, Point, Sweep, layer_sizes, validated

# Part of every run's hash: raise it when the same parameters must give other numbers than before.
RESULTS_VERSION = 1

# Conductances times images: about half a minute on two cores, from which on starting more processes pays.
WORTH_PROCESSES = 1e11

IMAGES = 64  # of the pass before training

# In a notebook a bar is a widget; where papermill's caller watches from a terminal (`epkit.execute`), it is text.
progress_bar = std.tqdm if os.environ.get("EPKIT_TERMINAL") else auto.tqdm

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
    "wall_time": {"units": "s", "long_name": "computing time, the ensemble's shared equally among its members"},
    "run": {"long_name": "hash of all that the run depends on"},
    "rate": {"units": "1", "long_name": "learning rate of each layer in the first epoch"},
    "chance": {"units": "1", "long_name": "test error of always naming the commonest class"},
    "image": {"units": "1", "long_name": "first training image of each class"},
}
RUN = {"test_error", "train_error", "train_cost", "activity", "conductance", "diverged", "wall_time", "run"}


def run(
    parameters: Sweep | Mapping[str, object],
    path: str | Path,
    *,
    device: str = "cpu",
    scheduler: str | None = None,
) -> xr.Dataset:
    """The runs of a sweep: read from the store where it has them, computed where it doesn't.

    With a complete store this only reads. Otherwise groups of missing runs are trained under a progress bar, here or on
    a cluster, each kept in a file of its own as soon as it is done, and merged into the store at the end; an
    interrupted call goes on where it stopped and ends with the same numbers.

    Args:
        parameters: a `Sweep`, or values for one.
        path: the netCDF store; what isn't merged yet lies beside it in `<name>.parts/`.
        device: where torch computes. scheduler: address of a Dask cluster's, such as "tcp://127.0.0.1:8786"; None
            trains on the cores of this machine, as many groups at once as have work for all of them. Neither is part
            of the parameters.

    Returns:
        Dataset over (dataset, learning_rate, averaging, samples, sigma, seed, epoch[, layer]): test_error,
        train_error, train_cost (V^2), activity, conductance (S), diverged, wall_time (s), run (hash);
        rate (dataset, learning_rate, layer); chance and title (dataset); image (dataset, class_number, row, column).

    Raises:
        ParameterError: before any work. datasets.DataUnavailable: before any training.
        StoreError: when the store can't be written.
        pool.ClusterError: when the cluster can't be used or is lost, or runs failed on it; the others are kept.
    """
    if scheduler is not None:
        pool.check_address(scheduler)
    sweep = parameters if isinstance(parameters, Sweep) else validated(Sweep, parameters)
    path = Path(path)
    if (known := complete_store(path, sweep)) is not None:
        return known

    ids = _run_ids(sweep)
    points = list(ids)
    with store_lock(path):
        if (known := complete_store(path, sweep)) is not None:
            return known
        parts = path.with_suffix(".parts")
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink()
        # Neighbouring stores of the profile may hold the same runs for another figure.
        finished = _finished([*parts.glob("*.nc")], [path, *path.parent.glob("*.nc")])
        missing = [p for p in points if ids[p] not in finished]
        # Here, not by each ensemble: another machine's might differ in the last bit.
        with ensemble.nudge_too_strong():
            rates = {name: ensemble.layer_rates(sweep, name, device) for name in sweep.dataset}
        parts.mkdir(parents=True, exist_ok=True)
        groups = {digest("".join(ids[p] for p in group))[:20]: group for group in _groups(missing)}
        failed: dict[str, Exception] = {}
        images = len(missing) * ensemble.images_a_run(sweep)
        with progress_bar(total=images, unit="image", unit_scale=True, desc=path.stem) as bar:

            def show(images: int, where: str = "") -> None:
                lost = sum(len(groups[name]) for name in failed)
                counts = f"{len(points) - len(missing)} runs done, {lost} failed, {len(missing) - lost} waiting"
                bar.set_postfix_str(counts + where, refresh=False)
                bar.update(images)

            with contextlib.closing(_trained(sweep, groups, rates, device, scheduler, parts, show)) as histories:
                for name, part in histories:
                    if isinstance(part, Exception):
                        failed[name] = part
                        continue
                    part["run"] = "member", [ids[p] for p in groups[name]]
                    store.write(part, parts / f"{name}.nc")
                    (parts / f"{name}.checkpoint").unlink(missing_ok=True)
                    finished |= _runs(part)
                    missing = [p for p in missing if p not in groups[name]]
            show(0)
        if failed:
            lines = [f"{path.name}: {len(missing)} runs failed; the others are kept, the same call tries these again"]
            for name, error in failed.items():
                first, runs = groups[name][0], len(groups[name])
                which = f"{first.dataset}, {first.averaging} averaging, N = {first.samples}, seed {first.seed}"
                lines.append(f"  {which} ({runs} runs): {type(error).__name__}: {error}")
            raise pool.ClusterError("\n".join(lines)) from next(iter(failed.values()))
        merged = _merged(sweep, [finished[ids[p]] for p in points], rates)
        store.write(merged, path)
        shutil.rmtree(parts, ignore_errors=True)
    return store.read(path)


def memoised(path: Path, held: Callable[[], xr.Dataset | None], compute: Callable[[str], xr.Dataset]) -> xr.Dataset:
    """What `require` finds at `path`, else what `compute` makes under a bar of the store's name, then kept there."""
    if (known := held()) is not None:
        return known
    with store_lock(path):
        if (known := held()) is not None:
            return known
        store.write(compute(path.stem), path)
    return store.read(path)


def run_several(
    comparison: Mapping[str, object], stem: str | Path, scheduler: str | None = None
) -> dict[str, xr.Dataset]:
    """`run` of each network of a `parameters.Comparison` that it computes, `finished_runs` of the others, in its order.

    Each has a store `<stem>.<network>.nc`; one of which nothing is finished is left out.
    """
    asked = validated(Comparison, comparison)
    wanted = asked.wanted()
    stores: dict[str, xr.Dataset] = {}
    for name, sweep in asked.networks.items():
        path = Path(f"{stem}.{name}.nc")
        ds = run(sweep, path, scheduler=scheduler) if name in wanted else finished_runs(sweep, path)
        if ds is not None:
            stores[name] = ds
    return stores


def untrained(networks: Mapping[str, Sweep | Mapping[str, object]], path: str | Path) -> xr.Dataset:
    """Voltages, and what the nudge moves, in the networks of several sweeps before their training.

    Read from the store at `path` where it holds just these sweeps, else computed in seconds from the first training
    images of each one's first data set, with the initial conductances of its seeds.

    Returns:
        Dataset over (network, seed, layer), NaN where a network has no such seed or layer: `voltage` (V), rms of the
        free state; `response` (V), rms of the upper nudged phase minus the lower.
    """
    sweeps = validated(Comparison, {"networks": dict(networks)}).networks
    facts: dict[str, object] = {"images": IMAGES} | {
        "networks": {name: sweep.model_dump(mode="json", exclude_none=True) for name, sweep in sweeps.items()}
    }

    def compute(name: str) -> xr.Dataset:
        with progress_bar(sweeps.values(), desc=name) as bar:
            found = [ensemble.untrained(sweep, IMAGES) for sweep in bar]
        merged = xr.concat(found, xr.Variable("network", list(sweeps)), join="outer")
        checksums = {name: datasets.checksum(name) for sweep in sweeps.values() for name in sweep.dataset[:1]}
        return merged.assign_attrs(store.provenance("Networks before training", facts, checksums))

    return memoised(Path(path), partial(recorded_store, Path(path), facts), compute)


def finished_runs(parameters: Sweep | Mapping[str, object], path: str | Path) -> xr.Dataset | None:
    """What is finished of a sweep, as `run` returns it, NaN in place of the rest; None if nothing is.

    Nothing is computed. Runs that lie in `<name>.parts/` are put into the store, from which `run` goes on, unless
    another process is computing it.
    """
    sweep = parameters if isinstance(parameters, Sweep) else validated(Sweep, parameters)
    path = Path(path)
    known = recorded_store(path, settings(sweep))
    wanted = list(_run_ids(sweep).values())
    held = {} if known is None else _runs(known)
    parts = _finished([*path.with_suffix(".parts").glob("*.nc")], [])
    added = {name: part for name, part in parts.items() if name in wanted and name not in held}
    if not added:
        return known
    runs, one = held | added, next(iter(added.values()))
    nothing = one.map(lambda v: xr.full_like(v, "") if v.dtype.kind in "OUT" else xr.full_like(v, np.nan, float))
    rates = {name: ensemble.layer_rates(sweep, name, "cpu") for name in sweep.dataset}
    merged = _merged(sweep, [runs.get(name, nothing) for name in wanted], rates)
    with contextlib.suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0):
        store.write(merged, path)
    return merged


def _axis(sweep: Sweep, name: str) -> list:
    return list(range(sweep.seeds)) if name == "seed" else getattr(sweep, name)


def settings(network: Sweep | Mechanism | Oracles) -> dict[str, object]:
    """The parameters as a store records them, with the layer sizes that they amount to."""
    names = network.dataset if isinstance(network.dataset, list) else [network.dataset]
    return network.model_dump(mode="json", exclude_none=True) | {
        "sizes": {name: list(layer_sizes(network, name)) for name in names}
    }


def _run_ids(sweep: Sweep) -> dict[Point, str]:
    """Every run of the grid with the hash of all that its numbers depend on: parameters, data, and their meaning."""
    shared = sweep.model_dump(include=set(Network.model_fields), exclude_none=True) | {"version": RESULTS_VERSION}
    data = {name: datasets.checksum(name) for name in sweep.dataset}
    points = [Point(*p) for p in itertools.product(*(_axis(sweep, axis) for axis in Point._fields))]
    facts = [shared | point._asdict() | {"data": data[point.dataset]} for point in points]
    return {p: digest(json.dumps(f, sort_keys=True))[:20] for p, f in zip(points, facts, strict=True)}


def recorded_store(path: Path, facts: Mapping[str, object]) -> xr.Dataset | None:
    """The store, if it is sound and records just these facts as its parameters."""
    known = store.read_if_sound(path, store.parameters)
    return None if known is None or store.parameters(known) != facts else known


def complete_store(path: Path, parameters: Sweep | Mechanism | Oracles) -> xr.Dataset | None:
    """The store, if it is sound, holds exactly this experiment and lacks nothing that could now be computed."""
    if (known := recorded_store(path, settings(parameters))) is None:
        return None
    if isinstance(parameters, Sweep):
        complete = set(known.data_vars) >= RUN
        return known if complete and list(known["run"].values.flat) == list(_run_ids(parameters).values()) else None
    return known


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
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
        raise StoreError(f"{path}: cannot be written ({error.strerror}), and is not complete") from error
    try:
        yield
    finally:
        lock.release()


def _groups(points: list[Point]) -> list[list[Point]]:
    """Runs to train as one ensemble: those that share data set, read-outs and seed, so also batches and noise."""

    return [list(group) for _, group in itertools.groupby(sorted(points, key=_shared), key=_shared)]


def _shared(point: Point) -> tuple[str, str, int, int]:
    return point.dataset, point.averaging, point.samples, point.seed


def _trained(
    sweep: Sweep,
    groups: Mapping[str, list[Point]],
    rates: Mapping[str, list[float]],
    device: str,
    scheduler: str | None,
    parts: Path,
    progress: Callable[..., object],
) -> Generator[tuple[str, xr.Dataset | Exception], None, None]:
    """Each group's name with its history, or with what it failed of on a cluster; what fails here is raised."""
    if not groups:
        return
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            from dask.system import CPU_COUNT  # knows the share of the cores that a container has

            torch.set_num_threads(cores := min(torch.get_num_threads(), CPU_COUNT))
            # No more threads than members are of use to a group: what a large machine has beyond that trains others.
            at_once = min(len(groups), cores // max(map(len, groups.values())))
            sizes = [layer_sizes(sweep, p.dataset) for group in groups.values() for p in group]
            work = ensemble.images_a_run(sweep) * sum(a * b for size in sizes for a, b in itertools.pairwise(size))
            if device != "cpu" or work < WORTH_PROCESSES:
                at_once = 1
            if at_once < 2:
                for name, group in groups.items():
                    yield name, ensemble.trained(
                        sweep, group, rates[group[0].dataset],
                        device=device, checkpoint=parts / f"{name}.checkpoint", progress=progress,
                    )  # fmt: skip
                return
            scheduler = stack.enter_context(pool.of_this_machine(at_once, cores // at_once))
        client = stack.enter_context(pool.connected(scheduler))
        pool.refuse_misfits(client, scheduler, sweep.dataset, device)
        yield from pool.trained(client, scheduler, sweep, groups, rates, device, parts, progress)


def _finished(parts: list[Path], neighbours: list[Path]) -> dict[str, xr.Dataset]:
    """Every run that some sound file holds, by its hash. Neighbours may be anybody's and stay as they are."""
    files = [store.read_if_sound(part) for part in parts]
    for path in neighbours:
        with contextlib.suppress(StoreError):
            files.append(store.read(path))
    runs: dict[str, xr.Dataset] = {}
    for known in files:
        if known is not None and set(known.data_vars) >= RUN and {"member", "seed"} & set(known["run"].dims):
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
    data = {name: ensemble.data(sweep, name) for name in sweep.dataset}
    commonest = [np.bincount(data[name].test[1]).max() / sweep.test_images for name in sweep.dataset]
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


def _one_of_each_class(name: str, data: ensemble.Images) -> xr.DataArray:
    """The first training image of each class, for a figure that needs no data set."""
    x, y = data.train
    first = [int((y == label).nonzero()[0]) for label in range(10)]
    images = x[first].unflatten(1, datasets.INFO[name].shape).numpy()
    coords = {axis: np.arange(n) for axis, n in zip(("class_number", "row", "column"), images.shape, strict=True)}
    return xr.DataArray(images, coords, name="image", attrs=ATTRIBUTES["image"])
