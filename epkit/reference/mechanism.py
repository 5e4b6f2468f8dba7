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
from ..sweep.parameters import Mechanism, layer_sizes, settings, validated
from ..sweep.runs import complete_store, memoised, progress_bar
from .solutions import agreement, backpropagated


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

    def compute(name: str) -> xr.Dataset:
        return _examined(mechanism, name)

    return memoised(partial(complete_store, Path(path), mechanism), Path(path), compute)


def _examined(mechanism: Mechanism, name: str) -> xr.Dataset:
    """The content of `examine_network`'s store, computed under a progress bar of that name."""
    images = ensemble.data(mechanism, mechanism.dataset)
    x_train, y_train = images.train
    sizes = layer_sizes(mechanism, mechanism.dataset)
    x = x_train[: mechanism.check_images].double()
    target = one_hot(y_train[: mechanism.check_images], sizes[-1]).double()
    untrained = DeepResistiveNetwork(sizes, input_gain=mechanism.input_gain, dtype=torch.float64)
    steps = len(mechanism.betas) * len(NUDGES) + mechanism.epochs + 2
    with progress_bar(total=steps, desc=name) as bar, one_thread(), ensemble.nudge_too_strong():
        relaxation = _relaxation(untrained, x, target, mechanism)
        bar.update()
        reference = backpropagated(untrained, x, target, iterations=mechanism.check_iterations)
        bar.update()
        estimates = []
        for nudge, beta in itertools.product(NUDGES, mechanism.betas):
            estimate = gradient(untrained, x, target, beta=beta, iterations=mechanism.check_iterations, estimator=nudge)
            estimates.append([agreement(g, r) for g, r in zip(estimate.weights, reference, strict=True)])
            bar.update()
        net = DeepResistiveNetwork(sizes, input_gain=mechanism.input_gain, dtype=getattr(torch, mechanism.dtype))
        rates = mechanism.learning_rate * torch.tensor(ensemble.layer_rates(mechanism, mechanism.dataset, "cpu"))
        history = train(
            net,
            *images.train,
            epochs=mechanism.epochs,
            batch_size=mechanism.batch_size,
            beta=mechanism.beta,
            iterations=mechanism.iterations,
            learning_rates=rates.tolist(),
            decay=mechanism.decay,
            bias_rate=mechanism.bias_rate,
            test=images.test,
            estimator=mechanism.estimator,
        )
        bar.update(mechanism.epochs)
    agreements = np.array(estimates).reshape(len(NUDGES), len(mechanism.betas), -1, 2)
    dims = ("estimator", "nudge", "layer")
    checks = xr.Dataset(
        {
            "cosine": (dims, agreements[..., 0], {"units": "1"}),
            "relative_error": (dims, agreements[..., 1], {"units": "1"}),
        },
        {"estimator": list(NUDGES), "nudge": mechanism.betas, "layer": history.layer},
    )
    checks["nudge"].attrs = {"units": "S", "long_name": "nudging conductance, beta"}
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
        distance.append([[float((v - s).square().mean().sqrt()) for v, s in zip(p, steady, strict=True)] for p in path])
        output.append([p[-1][0, 0].tolist() for p in path])
    return xr.Dataset(
        {
            "distance": (("phase", "iteration", "layer"), np.array(distance), {"units": "V"}),
            "output": (("phase", "iteration", "unit"), np.array(output), {"units": "V"}),
        },
        {"phase": list(phases), "layer": np.arange(1, len(net.sizes))},
    )
