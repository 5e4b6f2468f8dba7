"""From validated parameters to a store: the memoised sweep, and the study of one network for notebook 01.

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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import auto, std

from . import datasets, store
from .learning import NUDGES, agreement, backpropagated, gradient, one_thread, relative_rates, train
from .networks import DeepResistiveNetwork
from .parameters import Mechanism, Network, ParameterError, Sweep, validated
from .uncertainty import Averaging, GaussianReadout

# Part of every run's hash: raise it when the same parameters must give other numbers than before.
RESULTS_VERSION = 1


# Seconds after which the state of an unfinished ensemble is worth a file.
KEEP_EVERY = 60.0

# In a notebook a bar is a widget; where papermill's caller watches from a terminal (`epkit.execute`), it is text.
progress_bar = std.tqdm if os.environ.get("EPKIT_TERMINAL") else auto.tqdm

ATTRIBUTES: dict[str, dict[str, str]] = {
    "test_error": {"units": "1", "long_name": "share of test images classified wrongly"},
    "train_error": {"units": "1", "long_name": "share of training images classified wrongly, before each update"},
    "train_cost": {"units": "V2", "long_name": "mean of 1/2 |v_L - target|^2 over training images, before each update"},
    "activity": {"units": "1", "long_name": "share of diode units that conduct, mean over test images"},
    "conductance": {"units": "S", "long_name": "mean conductance of a layer"},
    "diverged": {"units": "1", "long_name": "some parameter is no longer finite"},
    "wall_time": {"units": "s", "long_name": "computing time, the ensemble's shared equally among its members"},
    "run": {"long_name": "hash of all that the run depends on"},
    "rate": {"units": "1", "long_name": "learning rate of each layer in the first epoch"},
    "chance": {"units": "1", "long_name": "test error of always naming the commonest class"},
    "image": {"units": "1", "long_name": "first training image of each class"},
}


class Point(NamedTuple):
    """One run's place on the grid; the field names are the store's dimensions."""

    dataset: str
    learning_rate: float
    averaging: Averaging
    samples: int
    sigma: float
    seed: int


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
        _check_size(sweep, name)
    path = Path(path)
    if (known := holding(path, sweep)) is not None:
        return known

    ids = _run_ids(sweep)
    points = list(ids)
    with _only_one_computing(path):
        if (known := holding(path, sweep)) is not None:
            return known
        parts = path.with_suffix(".parts")
        parts.mkdir(parents=True, exist_ok=True)
        # Neighbouring stores of the profile may hold the same runs for another figure.
        finished = _finished({path, *parts.glob("*.nc"), *path.parent.glob("*.nc")})
        missing = [p for p in points if ids[p] not in finished]
        data = {name: _load(sweep, name) for name in sweep.dataset}
        rates = {name: _rates(sweep, name, data[name], device) for name in sweep.dataset}
        images = sweep.train_images // sweep.batch_size * sweep.batch_size * sweep.epochs
        with progress_bar(total=len(missing) * images, unit="image", unit_scale=True, desc=path.stem) as bar:
            for group in _groups(missing):
                bar.set_postfix_str(f"{len(points) - len(missing)} of {len(points)} runs done")
                name, of_group = group[0].dataset, [ids[p] for p in group]
                file = parts / f"{store.digest(''.join(of_group))[:20]}.nc"
                checkpoint = file.with_suffix(".checkpoint")
                part = _train(sweep, group, data[name], rates[name], device, checkpoint, bar.update)
                part["run"] = "member", of_group
                store.write(part, file)
                checkpoint.unlink(missing_ok=True)
                finished |= _runs(part)
                missing = [p for p in missing if p not in group]
        merged = _merged(sweep, [finished[ids[p]] for p in points], data, rates)
        store.write(merged, path)
        shutil.rmtree(parts)
    return store.read(path)


def look_inside(parameters: Mechanism | Mapping[str, object], path: str | Path) -> xr.Dataset:
    """One network looked at closely: how it relaxes, whether its EP gradient is the true one, and that it learns.

    Read from the store at `path` where it holds just these parameters, else computed in well under a minute.

    Returns:
        Dataset with
        - distance (phase, iteration, layer): rms distance to the steady state (V) of the free phase and of both nudged
          phases, mean over the checked images; `output` (phase, iteration, unit): output voltages for the first image;
        - cosine and relative_error (estimator, nudge, layer): EP estimate after `check_iterations` against autograd
          through the relaxation, in float64;
        - test_error, train_error, activity … over (epoch[, layer]): training without uncertainty.
    """
    mechanism = parameters if isinstance(parameters, Mechanism) else validated(Mechanism, parameters)
    _check_size(mechanism, mechanism.dataset)
    path = Path(path)
    if (known := holding(path, mechanism)) is not None:
        return known
    data = _load(mechanism, mechanism.dataset)
    sizes = _sizes(mechanism, mechanism.dataset)
    x = data.x_train[: mechanism.check_images].double()
    target = one_hot(data.y_train[: mechanism.check_images], sizes[-1]).double()
    untrained = DeepResistiveNetwork(sizes, input_gain=mechanism.input_gain, dtype=torch.float64)
    steps = len(mechanism.betas) * len(NUDGES) + mechanism.epochs + 2
    with progress_bar(total=steps, desc=path.stem) as bar, one_thread():
        relaxation = _relaxation(untrained, x, target, mechanism)
        bar.update()
        reference = backpropagated(untrained, x, target, iterations=mechanism.check_iterations)
        bar.update()
        estimates = []
        for name, beta in itertools.product(NUDGES, mechanism.betas):
            estimate = gradient(untrained, x, target, beta=beta, iterations=mechanism.check_iterations, estimator=name)
            estimates.append([agreement(g, r) for g, r in zip(estimate.weights, reference, strict=True)])
            bar.update()
        net = DeepResistiveNetwork(sizes, input_gain=mechanism.input_gain, dtype=getattr(torch, mechanism.dtype))
        rates = mechanism.learning_rate * _rates(mechanism, mechanism.dataset, data, "cpu")
        history = train(
            net,
            data.x_train,
            data.y_train,
            epochs=mechanism.epochs,
            batch_size=mechanism.batch_size,
            beta=mechanism.beta,
            iterations=mechanism.iterations,
            learning_rates=rates.tolist(),
            decay=mechanism.decay,
            bias_rate=mechanism.bias_rate,
            test=(data.x_test, data.y_test),
            estimator=mechanism.estimator,
        )
        bar.update(mechanism.epochs)
    compared = np.array(estimates).reshape(len(NUDGES), len(mechanism.betas), -1, 2)
    dims = ("estimator", "nudge", "layer")
    checked = xr.Dataset(
        {
            "cosine": (dims, compared[..., 0], {"units": "1"}),
            "relative_error": (dims, compared[..., 1], {"units": "1"}),
        },
        {"estimator": list(NUDGES), "nudge": mechanism.betas, "layer": history.layer},
    )
    checked["nudge"].attrs = {"units": "S", "long_name": "nudging conductance, beta"}
    everything = xr.merge([relaxation, checked, history.isel(member=0, drop=True)], join="exact", compat="equals")
    everything["title"] = (), datasets.INFO[mechanism.dataset].title
    checksums = {mechanism.dataset: datasets.checksum(mechanism.dataset)}
    title = "Relaxation, gradient and learning of a deep resistive network"
    store.write(everything.assign_attrs(store.provenance(title, _settings(mechanism), checksums)), path)
    return store.read(path)


def _relaxation(net: DeepResistiveNetwork, x: Tensor, target: Tensor, mechanism: Mechanism) -> xr.Dataset:
    """Distance to the steady state and output voltages along the free and both nudged phases."""
    beta = mechanism.beta
    start = net.relax(x, mechanism.iterations)
    phases = {"free": (None, 0.0, None), "nudged +": (target, beta, start), "nudged -": (target, -beta, start)}
    distance, output = [], []
    for wanted, nudge, first in phases.values():
        steady = net.relax(x, mechanism.check_iterations, wanted, nudge, first)
        path = [first or [torch.zeros_like(v) for v in steady]]
        for _ in range(2 * mechanism.iterations):
            path.append(net.relax(x, 1, wanted, nudge, path[-1]))
        distance.append([[float((v - s).square().mean().sqrt()) for v, s in zip(p, steady, strict=True)] for p in path])
        output.append([p[-1][0, 0].tolist() for p in path])
    return xr.Dataset(
        {
            "distance": (("phase", "iteration", "layer"), np.array(distance), {"units": "V"}),
            "output": (("phase", "iteration", "unit"), np.array(output), {"units": "V"}),
        },
        {"phase": list(phases), "layer": np.arange(1, len(net.sizes))},
    )


def _axis(sweep: Sweep, name: str) -> list:
    return list(range(sweep.seeds)) if name == "seed" else getattr(sweep, name)


def _settings(network: Sweep | Mechanism) -> dict[str, object]:
    """The parameters as a store records them, with the layer sizes that they amount to."""
    names = network.dataset if isinstance(network.dataset, list) else [network.dataset]
    return network.model_dump(mode="json", exclude_none=True) | {
        "sizes": {name: list(_sizes(network, name)) for name in names}
    }


def _run_ids(sweep: Sweep) -> dict[Point, str]:
    """Every run of the grid with the hash of all that its numbers depend on: parameters, data, and their meaning."""
    shared = sweep.model_dump(include=set(Network.model_fields), exclude_none=True) | {"version": RESULTS_VERSION}
    data = {name: datasets.checksum(name) for name in sweep.dataset}
    points = [Point(*p) for p in itertools.product(*(_axis(sweep, axis) for axis in Point._fields))]
    facts = [shared | point._asdict() | {"data": data[point.dataset]} for point in points]
    return {p: store.digest(json.dumps(f, sort_keys=True))[:20] for p, f in zip(points, facts, strict=True)}


def _check_size(network: Network, name: str) -> None:
    info = datasets.INFO[name]
    for field, most in (("train_images", info.n_train), ("test_images", info.n_test)):
        if (wanted := getattr(network, field)) > most:
            raise ParameterError(f"parameters: {field} = {wanted}: {info.title} allows 1 to {most}")
    if network.batch_size > network.train_images:
        raise ParameterError(f"parameters: batch_size = {network.batch_size}: allowed are 1 to train_images")


def _load(network: Network, name: str) -> datasets.Split:
    return datasets.load(name, train=network.train_images, test=network.test_images)


def _sizes(network: Network, name: str) -> tuple[int, ...]:
    rows, columns = datasets.INFO[name].shape
    return (rows * columns, *network.hidden, 10)


def _rates(network: Network, name: str, data: datasets.Split, device: str) -> Float[Tensor, " layer"]:
    """Learning rate of each layer at eta = 1."""
    if network.rates is not None:
        return torch.tensor(network.rates)
    return relative_rates(
        _sizes(network, name),
        data.x_train,
        data.y_train,
        input_gain=network.input_gain,
        beta=network.beta,
        iterations=network.iterations,
        batch_size=network.batch_size,
        device=device,
    )


def holding(path: Path, parameters: Sweep | Mechanism) -> xr.Dataset | None:
    """The store, if it is sound and holds exactly this experiment; else None."""
    known = store.read_if_sound(path)
    if known is None or store.parameters(known) != _settings(parameters):
        return None
    if isinstance(parameters, Sweep) and list(known["run"].values.flat) != list(_run_ids(parameters).values()):
        return None
    return known


@contextmanager
def _only_one_computing(path: Path) -> Iterator[None]:
    """Wait until no other process computes this store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name} is being computed by another process; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _groups(points: list[Point]) -> list[list[Point]]:
    """Runs to train as one ensemble: those that share data set, read-outs and seed, so also batches and noise."""

    def shared(point: Point) -> tuple:
        return point.dataset, point.averaging, point.samples, point.seed

    return [list(group) for _, group in itertools.groupby(sorted(points, key=shared), key=shared)]


def _train(
    sweep: Sweep,
    group: list[Point],
    data: datasets.Split,
    rates: Float[Tensor, " layer"],
    device: str,
    checkpoint: Path,
    progress: Callable[[int], object],
) -> xr.Dataset:
    """The history of a group's runs over (epoch, member[, layer]); long ones go on from their last `checkpoint`."""
    first, started = group[0], time.perf_counter()
    net = DeepResistiveNetwork(
        _sizes(sweep, first.dataset),
        input_gain=sweep.input_gain,
        members=len(group),
        seed=first.seed,
        dtype=getattr(torch, sweep.dtype),
        device=device,
    )
    history = _resumed(checkpoint, net)
    progress(len(history) * (sweep.train_images // sweep.batch_size * sweep.batch_size) * len(group))
    kept = time.perf_counter()
    for epoch in range(len(history), sweep.epochs):
        history.append(
            train(
                net,
                data.x_train,
                data.y_train,
                epochs=1,
                first_epoch=epoch,
                batch_size=sweep.batch_size,
                beta=sweep.beta,
                iterations=sweep.iterations,
                learning_rates=[float(rate) * torch.tensor([p.learning_rate for p in group]) for rate in rates],
                readout=GaussianReadout(torch.tensor([p.sigma for p in group]), first.samples, first.averaging),
                seed=first.seed,
                decay=sweep.decay,
                bias_rate=sweep.bias_rate,
                test=(data.x_test, data.y_test),
                estimator=sweep.estimator,
                progress=lambda images: progress(images * len(group)),
            )
        )
        now = time.perf_counter()
        history[-1]["wall_time"] = ("epoch", "member"), np.full((1, len(group)), (now - started) / len(group))
        started = now
        if now - kept > KEEP_EVERY and epoch + 1 < sweep.epochs:
            _keep(checkpoint, net, history)
            kept = now
    whole = xr.concat(history, "epoch", join="exact")
    return whole.assign(wall_time=whole.wall_time.sum("epoch"))


def _keep(checkpoint: Path, net: DeepResistiveNetwork, history: list[xr.Dataset]) -> None:
    """An unfinished group's parameters and history, in a file that takes the place of the last such."""
    parameters = {
        f"{kind}_{layer}": (("member", *(f"{kind}_{layer}_{axis}" for axis in range(p.ndim - 1))), p.cpu().numpy())
        for kind, tensors in (("weight", net.weights), ("bias", net.biases))
        for layer, p in enumerate(tensors)
    }
    store.write(xr.concat(history, "epoch", join="exact").assign(parameters), checkpoint)


def _resumed(checkpoint: Path, net: DeepResistiveNetwork) -> list[xr.Dataset]:
    """The epochs that an interrupted call had finished, with `net` as it was then; none if there is no checkpoint."""
    if (kept := store.read_if_sound(checkpoint)) is None:
        return []
    for kind, tensors in (("weight", net.weights), ("bias", net.biases)):
        for layer, p in enumerate(tensors):
            p.copy_(torch.from_numpy(kept[f"{kind}_{layer}"].values))
    history = kept[[name for name, v in kept.data_vars.items() if "epoch" in v.dims]]
    return [history.isel(epoch=[k]) for k in range(history.sizes["epoch"])]


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
    data: Mapping[str, datasets.Split],
    rates: Mapping[str, Float[Tensor, " layer"]],
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
    return grid.assign_attrs(store.provenance(title, _settings(sweep), checksums))


def _one_of_each_class(name: str, data: datasets.Split) -> xr.DataArray:
    """The first training image of each class, for a figure that needs no data set."""
    first = [int((data.y_train == label).nonzero()[0]) for label in range(10)]
    images = data.x_train[first].unflatten(1, datasets.INFO[name].shape).numpy()
    coords = {axis: np.arange(n) for axis, n in zip(("class_number", "row", "column"), images.shape, strict=True)}
    return xr.DataArray(images, coords, name="image", attrs=ATTRIBUTES["image"])
