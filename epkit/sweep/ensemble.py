"""Runs that are trained together: one ensemble, checkpointed while it trains, so that a kill costs a minute."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import one_hot

from .. import data as datasets
from ..ep.learning import phases
from ..ep.networks import DeepResistiveNetwork
from ..ep.probe import one_thread, relative_rates
from ..ep.readout import GaussianReadout
from ..ep.training import State, train
from ..files import StoreError
from ..messages import ParameterError, short
from . import store
from .parameters import Network, Point, Sweep, layer_sizes

# Seconds after which the state of an unfinished ensemble is worth a file: at most a minute is computed again.
KEEP_EVERY = 45.0


class Images(NamedTuple):
    """What a network is trained, tested and, if wanted, validated on: pixels (n, n_0) and class numbers (n,)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor] | None


def data(network: Network, name: str) -> Images:
    """The images that a network asks for; validated is on training images after those that are trained on."""
    n = network.train_images
    split = _loaded(name, n + (network.validation_images or 0), network.test_images)
    validation = (split.x_train[n:], split.y_train[n:]) if network.validation_images else None
    return Images((split.x_train[:n], split.y_train[:n]), (split.x_test, split.y_test), validation)


@cache
def _loaded(name: str, train_images: int, test_images: int) -> datasets.Split:
    """A data set, loaded and verified once in a process."""
    return datasets.load(name, train=train_images, test=test_images)


def layer_rates(network: Network, name: str, device: str) -> list[float]:
    """Learning rate of each layer at eta = 1."""
    if network.rates is not None:
        return torch.tensor(network.rates).tolist()
    with one_thread():
        return relative_rates(
            layer_sizes(network, name),
            *data(network, name).train,
            input_gain=network.input_gain,
            beta=network.beta,
            iterations=network.iterations,
            batch_size=network.batch_size,
            device=device,
        ).tolist()


@contextlib.contextmanager
def nudge_too_strong() -> Iterator[None]:
    """ParameterError where a nudged phase turns out to have no steady state, which only the network itself can tell."""
    try:
        yield
    except (ValueError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise ParameterError(f"parameters: beta: smaller ones are allowed ({short(error)})") from error


def images_a_run(network: Network) -> int:
    """Training images that one run sees, an epoch's last incomplete batch left out."""
    return network.train_images // network.batch_size * network.batch_size * network.epochs


def trained(
    sweep: Sweep,
    group: Sequence[Point],
    rates: Sequence[float],
    *,
    device: str = "cpu",
    checkpoint: Path,
    progress: Callable[[int], object],
) -> xr.Dataset:
    """The history of a group's runs over (epoch, member[, layer]).

    Args:
        group: runs that share data set, read-outs and seed, so also batches and noise.
        rates: learning rate of each layer at eta = 1.
        checkpoint: file that the state is kept in while training, and that an interrupted call goes on from.
        progress: called with the number of images that were done, times runs.
    """
    first, images = group[0], data(sweep, group[0].dataset)
    net = DeepResistiveNetwork(
        layer_sizes(sweep, first.dataset),
        input_gain=sweep.input_gain,
        members=len(group),
        seed=first.seed,
        dtype=getattr(torch, sweep.dtype),
        device=device,
    )
    state, before = _resumed(checkpoint, net)
    started = kept = time.perf_counter()
    seen = state.epoch * images_a_run(sweep) // sweep.epochs + state.step * sweep.batch_size
    progress(seen * len(group))

    def after_block(images: int) -> None:
        nonlocal kept
        progress(images * len(group))
        if (now := time.perf_counter()) - kept > KEEP_EVERY:
            try:
                _keep(checkpoint, net, state, before + now - started)
            except StoreError as error:  # a full disk: there may be room again when the runs are done
                warnings.warn(f"{error}; training goes on", stacklevel=2)
            kept = time.perf_counter()

    history = train(
        net,
        *images.train,
        epochs=sweep.epochs,
        batch_size=sweep.batch_size,
        beta=sweep.beta,
        iterations=sweep.iterations,
        learning_rates=[rate * torch.tensor([p.learning_rate for p in group]) for rate in rates],
        readout=GaussianReadout(torch.tensor([p.sigma for p in group]), first.samples, first.averaging),
        seed=first.seed,
        decay=sweep.decay,
        bias_rate=sweep.bias_rate,
        test=images.test,
        validation=images.validation,
        estimator=sweep.estimator,
        looks=sweep.looks,
        state=state,
        progress=after_block,
    )
    spent = before + time.perf_counter() - started
    return history.assign(wall_time=("member", np.full(len(group), spent / len(group))))


def untrained(sweep: Sweep, images: int) -> xr.Dataset:
    """Rms voltages of a sweep's networks before training, free and moved by the nudge, over (seed, layer)."""
    name = sweep.dataset[0]
    x, y = (each[:images] for each in data(sweep, name).train)
    sizes, rms = layer_sizes(sweep, name), []
    with one_thread(), nudge_too_strong():
        for seed in range(sweep.seeds):  # one at a time, for wide ones take much memory
            net = DeepResistiveNetwork(sizes, input_gain=sweep.input_gain, seed=seed, dtype=getattr(torch, sweep.dtype))
            inputs, target = x.to(net.biases[0]), one_hot(y, sizes[-1]).to(net.biases[0])
            free = net.relax(inputs, sweep.iterations)
            states = phases(
                net, inputs, target, beta=sweep.beta, iterations=sweep.iterations, estimator=sweep.estimator
            )
            moved = [v[:, 0] - v[:, 1] for v in states]
            rms.append([[float(v.double().square().mean().sqrt()) for v in each] for each in (free, moved)])
    words = {
        "voltage": "rms voltage of the free state",
        "response": "rms of what the nudge moves, upper phase minus lower",
    }
    return xr.Dataset(
        {
            key: (("seed", "layer"), v, {"units": "V", "long_name": text})
            for (key, text), v in zip(words.items(), np.array(rms).transpose(1, 0, 2), strict=True)
        },
        {"seed": np.arange(sweep.seeds), "layer": np.arange(1, len(sizes))},
    )


def _keep(checkpoint: Path, net: DeepResistiveNetwork, state: State, spent: float) -> None:
    """An unfinished group's parameters and state, in a file that takes the place of the last such."""
    parameters = {
        f"{kind}_{layer}": (("member", *(f"{kind}_{layer}_{axis}" for axis in range(p.ndim - 1))), p.cpu().numpy())
        for kind, tensors in (("weight", net.weights), ("bias", net.biases))
        for layer, p in enumerate(tensors)
    }
    since_record = {"wrong": state.wrong, "cost": state.cost}
    counted = {name: ("member", np.broadcast_to(np.asarray(v), net.members)) for name, v in since_record.items()}
    history = xr.concat(state.history, "epoch", join="exact") if state.history else xr.Dataset()
    place = {"finished_epochs": state.epoch, "finished_steps": state.step, "seconds": spent}
    store.write(history.assign(parameters | counted).assign_attrs(place), checkpoint, compress=False)


def _resumed(checkpoint: Path, net: DeepResistiveNetwork) -> tuple[State, float]:
    """Where an interrupted call stopped, with `net` as it was then, and the seconds it took; else the beginning."""
    if (kept := store.read_if_sound(checkpoint)) is None:
        return State(), 0.0
    for kind, tensors in (("weight", net.weights), ("bias", net.biases)):
        for layer, p in enumerate(tensors):
            p.copy_(torch.from_numpy(kept[f"{kind}_{layer}"].values))
    history = kept[[name for name, v in kept.data_vars.items() if "epoch" in v.dims]]
    state = State(
        int(kept.finished_epochs),
        int(kept.finished_steps),
        torch.from_numpy(kept["wrong"].values),
        torch.from_numpy(kept["cost"].values),
        [history.isel(epoch=[k]) for k in range(history.sizes.get("epoch", 0))],
    )
    return state, float(kept.seconds)
