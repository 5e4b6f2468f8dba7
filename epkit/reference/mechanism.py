"""One network looked at closely (notebook 01): how it relaxes, whether its gradient is the true one, that it learns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import one_hot

from .. import data
from ..ep.learning import NUDGES, gradient
from ..ep.networks import DeepResistiveNetwork
from ..ep.probe import one_thread
from ..ep.training import train
from ..sweep import ensemble, store
from ..sweep.parameters import Mechanism, layer_sizes, settings
from ..sweep.runs import complete_store, memoised, progress_bar
from ..validation import validated
from .solutions import agreements, backpropagated, rms

TRAINING = {"epochs", "batch_size", "beta", "iterations", "decay", "bias_rate", "estimator"}  # settings of `train`


def examine_network(parameters: Mechanism | Mapping[str, object], path: str | Path) -> xr.Dataset:
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
    return memoised(partial(complete_store, Path(path), mechanism), Path(path), partial(_examined, mechanism))


def _examined(mechanism: Mechanism, name: str) -> xr.Dataset:
    """The content of `examine_network`'s store, computed under a progress bar of that name."""
    images = ensemble.data(mechanism, mechanism.dataset)
    sizes, gain = layer_sizes(mechanism, mechanism.dataset), mechanism.input_gain
    x, labels = (values[: mechanism.check_images] for values in images.train)
    x, target = x.double(), one_hot(labels, sizes[-1]).double()
    untrained = DeepResistiveNetwork(sizes, input_gain=gain, dtype=torch.float64)
    steps = len(mechanism.betas) * len(NUDGES) + mechanism.epochs + 2
    with progress_bar(total=steps, desc=name) as bar, one_thread(), ensemble.nudge_too_strong():
        relaxation = _relaxation(untrained, x, target, mechanism)
        bar.update()
        reference = backpropagated(untrained, x, target, iterations=mechanism.check_iterations)
        bar.update()
        estimates = []
        for nudge, beta in itertools.product(NUDGES, mechanism.betas):
            estimate = gradient(untrained, x, target, beta=beta, iterations=mechanism.check_iterations, estimator=nudge)
            estimates.append(agreements(estimate.weights, reference))
            bar.update()
        net = DeepResistiveNetwork(sizes, input_gain=gain, dtype=getattr(torch, mechanism.dtype))
        rates = mechanism.learning_rate * torch.tensor(ensemble.layer_rates(mechanism, mechanism.dataset, "cpu"))
        history = train(
            net,
            *images.train,
            **mechanism.model_dump(include=TRAINING),
            learning_rates=rates.tolist(),
            test=images.test,
        )
        bar.update(mechanism.epochs)
    table = np.array(estimates).reshape(len(NUDGES), len(mechanism.betas), -1, 2)
    dims = ("estimator", "nudge", "layer")
    betas = ("nudge", mechanism.betas, {"units": "S", "long_name": "nudging conductance, beta"})
    checks = xr.Dataset(
        {name: (dims, table[..., k], {"units": "1"}) for k, name in enumerate(("cosine", "relative_error"))},
        {"estimator": list(NUDGES), "nudge": betas, "layer": history.layer},
    )
    merged = xr.merge([relaxation, checks, history.isel(member=0, drop=True)], join="exact", compat="equals")
    merged["title"] = (), data.INFO[mechanism.dataset].title
    checksums = {mechanism.dataset: data.checksum(mechanism.dataset)}
    title = "Relaxation, gradient and learning of a deep resistive network"
    return merged.assign_attrs(store.provenance(title, settings(mechanism), checksums))


def _relaxation(net: DeepResistiveNetwork, x: Tensor, target: Tensor, mechanism: Mechanism) -> xr.Dataset:
    """The way to the steady state of the free and both nudged phases.

    Returns:
        Dataset with distance (phase, iteration, layer; V) and output (phase, iteration, unit; V).
    """
    beta = mechanism.beta
    free = net.relax(x, mechanism.iterations)
    phases = {"free": (None, 0.0, None), "nudged +": (target, beta, free), "nudged -": (target, -beta, free)}
    distance, output = [], []
    for goal, nudge, start in phases.values():
        steady = net.relax(x, mechanism.check_iterations, goal, nudge, start)
        path = [start or [torch.zeros_like(v) for v in steady]]
        for _ in range(2 * mechanism.iterations):
            path.append(net.relax(x, 1, goal, nudge, path[-1]))
        distance.append([rms(state, steady) for state in path])
        output.append([state[-1][0, 0].tolist() for state in path])
    return xr.Dataset(
        {
            "distance": (("phase", "iteration", "layer"), np.array(distance), {"units": "V"}),
            "output": (("phase", "iteration", "unit"), np.array(output), {"units": "V"}),
        },
        {"phase": list(phases), "layer": np.arange(1, len(net.sizes))},
    )
