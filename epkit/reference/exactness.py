"""How exact the physics is, against exact solutions and real diodes: the experiment of notebook 06."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from .. import data
from ..ep.learning import Estimator, gradient
from ..ep.networks import DeepResistiveNetwork
from ..ep.probe import one_thread
from ..sweep import ensemble, store
from ..sweep.parameters import Oracles, Solved, settings
from ..sweep.runs import complete_store, memoised, progress_bar
from ..validation import validated
from . import spice
from .solutions import (
    DOUBLE,
    Inputs,
    Layers,
    Targets,
    agreements,
    implicit_gradient,
    quadratic_energy,
    rms,
    steady_state,
)

Batch = tuple[Inputs, Targets]
ESTIMATORS: tuple[Estimator, ...] = ("centered", "positive")


def measure_exactness(parameters: Oracles | Mapping[str, object], path: str | Path) -> xr.Dataset:
    """How exact relaxation, gradient and ideal diodes are; read from the store at `path` or computed in a minute.

    Without ngspice, what real diodes do stays NaN, with a warning, until the same call finds it installed.

    Returns:
        Dataset with, layers that a network lacks being NaN,

        - distance (network, phase, iteration, layer): rms distance to the exact steady state (V);
        - cosine and relative_error (network, reference, iteration, layer): EP estimate at the published beta and with
          these iterations a phase, against the same at the exact steady states ("converged") and against the
          gradient by implicit differentiation ("exact");
        - voltage, response, rounding (network, layer): rms of the free state, of the difference of the nudged phases
          and of one float32 rounding step of the free state (V), at the published settings; float32_error (network,
          layer): relative error of the same estimate in float32 against float64;
        - beta_error (precision, estimator, nudge, layer): relative error against the exact gradient;
        - shift (scale, layer): rms change of the voltages by real diodes, relative to the rms voltage; forward (scale):
          their forward voltage at 1 mA (V); diode_cosine and diode_error (scale, circuit, layer): EP estimate with real
          diodes against that with ideal ones ("ideal") and against the exact gradient of the circuit with real diodes
          ("real").

    Raises:
        ParameterError: before any work. data.DataUnavailable. StoreError: when the store can't be written.
    """
    study = parameters if isinstance(parameters, Oracles) else validated(Oracles, parameters)
    return memoised(partial(stored, Path(path), study), Path(path), partial(_measured, study))


def stored(path: Path, study: Oracles) -> xr.Dataset | None:
    """The store, if it holds this experiment and lacks nothing that could now be computed."""
    return complete_store(path, study, lambda ds: ds["shift"].notnull().any() or not spice.available())


def _measured(study: Oracles, name: str) -> xr.Dataset:
    """The content of `measure_exactness`' store, computed under a progress bar of that name."""
    split = data.load(study.dataset, train=study.images, test=1)
    batch = split.x_train.double(), one_hot(split.y_train, 10).double()
    with progress_bar(total=len(study.networks) + 2, desc=name) as bar, one_thread(), ensemble.nudge_too_strong():
        networks = []
        for network in study.networks:
            networks.append(_stopped_early(network, study.iterations, batch))
            bar.update()
        names = ["-".join(map(str, (split.x_train.shape[1], *network.hidden, 10))) for network in study.networks]
        parts = [xr.concat(networks, "network", join="outer").assign_coords(network=names)]
        for part in (_error_over_beta, _real_diodes):
            parts.append(part(study, batch))
            bar.update()
    merged = xr.merge(parts, join="outer", compat="equals")
    merged["title"] = (), data.INFO[study.dataset].title
    checksums = {study.dataset: data.checksum(study.dataset)}
    title = "Relaxation, gradient and diodes against exact solutions"
    return merged.assign_attrs(store.provenance(title, settings(study), checksums))


def _twins(hidden: list[int], gain: float, n_0: int) -> tuple[DeepResistiveNetwork, DeepResistiveNetwork]:
    """One untrained circuit twice, equal to the last bit: computed in float64, and in float32."""
    double, single = (
        DeepResistiveNetwork((n_0, *hidden, 10), input_gain=gain, dtype=dtype) for dtype in (DOUBLE, torch.float32)
    )
    double.weights = [w.double() for w in single.weights]
    return double, single


def _ep(net: DeepResistiveNetwork, batch: Batch, **settings: Any) -> list[Tensor]:
    """EP estimate for the conductances (V^2), in the network's precision: one float64 (n_pre, n_post) a layer."""
    estimate = gradient(net, *(t.to(net.biases[0]) for t in batch), **settings)
    return [g[0].double() for g in estimate.weights]


def _estimate(net: DeepResistiveNetwork, x: Tensor, upper: Layers, lower: Layers, beta: float) -> list[Tensor]:
    """Centred EP estimate (V^2), one (n_pre, n_post) a layer, from the states (V) of the two nudged phases."""
    states = [torch.stack(pair)[None] for pair in zip(upper, lower, strict=True)]
    return [w[0] for w in net.contrast(x, states, 2 * beta).weights]


def _stopped_early(network: Solved, iterations: list[int], batch: Batch) -> xr.Dataset:
    """An untrained network whose phases end before the steady state, against the steady states themselves.

    Returns:
        Dataset with one network's variables from distance to float32_error, as `measure_exactness` explains them;
        published_iterations and published_beta (S), the network's own.
    """
    x, target = batch
    beta = network.beta
    net, single = _twins(network.hidden, network.input_gain, x.shape[1])
    free = steady_state(net, x)
    steady = {
        "free": free,
        "nudged +": steady_state(net, x, target, beta, start=free),
        "nudged -": steady_state(net, x, target, -beta, start=free),
    }
    relaxed = net.relax(x, network.iterations)
    distance, early = [], {}
    for phase, sign in (("free", 0), ("nudged +", 1), ("nudged -", -1)):
        state, distances = relaxed if sign else None, []
        for k in range(1, max(iterations) + 1):
            state = net.relax(x, 1, target if sign else None, sign * beta, state)
            if k in iterations:
                distances.append(rms([v[0] for v in state], steady[phase]))
            if k == network.iterations:
                early[phase] = [v[0] for v in state]
        distance.append(distances)
    converged = _estimate(net, x, steady["nudged +"], steady["nudged -"], beta)
    exact, _ = implicit_gradient(net, x, target, free)
    estimates = [_ep(net, batch, beta=beta, iterations=k) for k in iterations]
    table = np.array([[agreements(estimate, reference) for estimate in estimates] for reference in (converged, exact)])
    published = {"beta": beta, "iterations": network.iterations}
    single_to_double = agreements(_ep(single, batch, **published), _ep(net, batch, **published))
    rounding = [torch.from_numpy(np.spacing(v.float().abs().numpy())).double() for v in early["free"]]
    dims = ("reference", "iteration", "layer")
    return xr.Dataset(
        {
            "distance": (("phase", "iteration", "layer"), np.array(distance), {"units": "V"}),
            "cosine": (dims, table[..., 0], {"units": "1"}),
            "relative_error": (dims, table[..., 1], {"units": "1"}),
            "voltage": ("layer", rms(early["free"]), {"units": "V"}),
            "response": ("layer", rms(early["nudged +"], early["nudged -"]), {"units": "V"}),
            "rounding": ("layer", rms(rounding), {"units": "V"}),
            "float32_error": ("layer", [error for _, error in single_to_double], {"units": "1"}),
            "published_iterations": ((), network.iterations, {"units": "1"}),
            "published_beta": ((), beta, {"units": "S"}),
        },
        {
            "phase": list(steady),
            "reference": ["converged", "exact"],
            "iteration": iterations,
            "layer": np.arange(1, len(net.sizes)),
        },
    )


def _error_over_beta(study: Oracles, batch: Batch) -> xr.Dataset:
    """beta_error (precision, estimator, nudge, layer): of converged EP estimates against implicit differentiation."""
    double, single = _twins(study.hidden, study.input_gain, batch[0].shape[1])
    exact, _ = implicit_gradient(double, *batch, steady_state(double, batch[0]))

    def errors(net: DeepResistiveNetwork, estimator: Estimator, beta: float) -> list[float]:
        estimate = _ep(net, batch, beta=beta, iterations=study.check_iterations, estimator=estimator)
        return [error for _, error in agreements(estimate, exact)]

    table = [[[errors(net, e, beta) for beta in study.betas] for e in ESTIMATORS] for net in (double, single)]
    return xr.Dataset(
        {"beta_error": (("precision", "estimator", "nudge", "layer"), np.array(table), {"units": "1"})},
        {
            "precision": ["float64", "float32"],
            "estimator": list(ESTIMATORS),
            "nudge": ("nudge", study.betas, {"units": "S", "long_name": "nudging conductance, beta"}),
            "layer": np.arange(1, len(double.sizes)),
        },
    )


def _real_diodes(study: Oracles, batch: Batch) -> xr.Dataset:
    """A small network whose diodes have a forward voltage, solved by ngspice; NaN where that isn't installed.

    Returns:
        Dataset with shift, forward, diode_cosine and diode_error, as `measure_exactness` explains them; diode_sizes,
        the sizes of the layers, as JSON.
    """
    pixels, targets = batch
    x = avg_pool2d(pixels.unflatten(1, data.INFO[study.dataset].shape)[:, None], study.pool).flatten(1)
    net, _ = _twins(study.diode_hidden, study.diode_gain, x.shape[1])
    beta, layers = study.diode_beta, len(net.sizes) - 1

    def solve(sign: int, diode: str, scale: float = 1.0) -> Layers:
        images = []
        for image, target in zip(x, targets, strict=True):
            goal, nudge = (target, sign * beta) if sign else (None, 0.0)
            text = spice.netlist(net, image, 0, goal, nudge, diode, scale=scale, siemens=study.siemens)
            images.append(spice.solve(text, net.sizes))
        return [torch.from_numpy(np.stack(layer)) for layer in zip(*images, strict=True)]

    shift = np.full((len(study.scales), layers), np.nan)
    table = np.full((len(study.scales), 2, layers, 2), np.nan)
    model = spice.MODELS[study.diode]
    if spice.available():
        ideal = solve(0, "ideal")
        reference = _estimate(net, x, solve(1, "ideal"), solve(-1, "ideal"), beta)
        hessian, current, sign = quadratic_energy(net, x, 0)
        for row, scale in enumerate(study.scales):
            free = solve(0, study.diode, scale)
            estimate = _estimate(net, x, solve(1, study.diode, scale), solve(-1, study.diode, scale), beta)
            # Kirchhoff: the current that resistors carry away from a unit has come through its diode.
            through = study.siemens * sign * (torch.cat(free, 1) @ hessian - current)
            shunt = sign.abs() * model.scaled(scale).slope(through) / study.siemens
            exact, _ = implicit_gradient(net, x, targets, free, shunt=shunt)
            shift[row] = np.array(rms(free, ideal)) / np.array(rms(ideal))
            table[row] = [agreements(estimate, other) for other in (reference, exact)]
    else:
        warnings.warn("ngspice is not installed: what real diodes do is left out", stacklevel=3)
    return xr.Dataset(
        {
            "shift": (("scale", "layer"), shift, {"units": "1"}),
            "diode_cosine": (("scale", "circuit", "layer"), table[..., 0], {"units": "1"}),
            "diode_error": (("scale", "circuit", "layer"), table[..., 1], {"units": "1"}),
            "diode_sizes": ((), json.dumps(net.sizes)),
        },
        {
            "scale": study.scales,
            "forward": ("scale", [model.scaled(s).forward(1e-3) for s in study.scales], {"units": "V"}),
            "circuit": ["ideal", "real"],
            "layer": np.arange(1, layers + 1),
        },
    )
