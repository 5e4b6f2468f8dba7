"""How exact the physics is: steady states and gradients that share no code with `relax`, and the study of notebook 06.

The steady state is the minimum of a quadratic under bounds. Knowing which diodes hold their unit at 0 V makes it one
linear system; which ones do is found by the primal-dual active set method. The gradient follows by implicit
differentiation of that system, without any nudge. Both need every voltage of a network at once, so they cost the cube
of its units where the relaxation costs its conductances.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from . import datasets, ensembles, spice, store
from .choices import Estimator
from .experiments import progress_bar, settings
from .learning import agreement, contrast, gradient
from .networks import DeepResistiveNetwork
from .parameters import Oracles, Solved
from .training import one_thread

Layers = list[Float[Tensor, "batch _n"]]
DOUBLE = torch.float64
ESTIMATORS: tuple[Estimator, ...] = ("centered", "positive")


def steady_state(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "batch n_0"],
    target: Float[Tensor, "batch n_L"] | None = None,
    beta: float = 0.0,
    *,
    start: Layers | None = None,
    member: int = 0,
) -> Layers:
    """The exact steady state of one member, by the primal-dual active set method (Hintermüller et al. 2002).

    Args:
        start: states (V) whose clamped diodes are the first guess; the answer doesn't depend on it.

    Returns:
        Voltages (V), one float64 (batch, n_l) a layer, l = 1 … L.

    Raises:
        RuntimeError: if beta is so negative that the energy has no minimum, or the active sets don't settle.
    """
    hessian, current, sign = _quadratic(net, x, member)
    if target is not None:
        hessian.diagonal()[-target.shape[1] :] += beta
        current[:, -target.shape[1] :] += beta * target
    if start is None:  # all diodes conducting: one system for all inputs
        connected = hessian.diagonal() != 0
        first = torch.zeros_like(current)
        first[:, connected] = _solve(hessian[connected][:, connected], current[:, connected].T).T
    else:
        first = torch.cat(start, 1)
    voltages = [_minimum(hessian, c, sign, (sign * v > 0) | (sign == 0)) for c, v in zip(current, first, strict=True)]
    return list(torch.stack(voltages).split(net.sizes[1:], 1))


def implicit_gradient(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "batch n_0"],
    target: Float[Tensor, "batch n_L"],
    states: Layers,
    *,
    shunt: Float[Tensor, "batch units"] | None = None,
    member: int = 0,
) -> tuple[list[Float[Tensor, "_n_pre _n_post"]], list[Float[Tensor, " _n"]]]:
    """Gradient of 1/2 |v_L - target|^2, batch mean, by implicit differentiation of the steady state `states`.

    With H the Hessian of the energy on the units that move and a = H^-1 (v_L - target), the derivative with respect to
    a conductance is minus the product of its drops in v and in a, and with respect to a bias it is a.

    Args:
        shunt: small-signal conductance of each unit's diode (S), for real diodes; None: ideal ones, which hold the
            units at 0 V and leave the others alone.

    Returns:
        One (n_pre, n_post) a layer (V^2), the first with the doubled inputs, and one (n_post,) a layer (V).
    """
    hessian, _, sign = _quadratic(net, x, member)
    v = torch.cat(states, 1)
    error = torch.zeros_like(v)
    error[:, -target.shape[1] :] = states[-1] - target
    adjoint = torch.zeros_like(v)
    for k in range(len(v)):
        moving = ((v[k] != 0) | (sign == 0)) & (hessian.diagonal() != 0)
        matrix = hessian[moving][:, moving]
        if shunt is not None:
            matrix = matrix + shunt[k, moving].diag()
        adjoint[k, moving] = _solve(matrix, error[k, moving, None])[:, 0]
    amplified = net.input_gain * x.to(DOUBLE)
    amplified = torch.cat([amplified, -amplified], 1)
    voltages = [amplified, *states]
    adjoints = [torch.zeros_like(amplified), *adjoint.split(net.sizes[1:], 1)]
    weights = [
        (v.mT @ b + a.mT @ w - (v * a).sum(0)[:, None] - (w * b).sum(0)) / len(x)
        for v, w, a, b in zip(voltages[:-1], voltages[1:], adjoints[:-1], adjoints[1:], strict=True)
    ]
    return weights, [a.mean(0) for a in adjoints[1:]]


def _quadratic(
    net: DeepResistiveNetwork, x: Float[Tensor, "batch n_0"], member: int
) -> tuple[Float[Tensor, "units units"], Float[Tensor, "batch units"], Float[Tensor, " units"]]:
    """The energy as 1/2 v H v - c v over all free voltages, and the sign that each one's diode keeps (0: none)."""
    weights = [w[member].to(DOUBLE) for w in net.weights]
    last = len(weights) - 1
    hessian = torch.zeros(sum(net.sizes[1:]), sum(net.sizes[1:]), dtype=DOUBLE)
    current = torch.cat([b[member] for b in net.biases]).to(DOUBLE).repeat(len(x), 1)
    sign, end = torch.zeros(len(hessian), dtype=DOUBLE), 0
    for layer, n in enumerate(net.sizes[1:]):
        begin, end = end, end + n
        hessian[begin:end, begin:end] = weights[layer].sum(0).diag()
        if layer == 0:
            plus, minus = weights[0].chunk(2, 0)
            current[:, :end] += net.input_gain * x.to(DOUBLE) @ (plus - minus)
        else:
            hessian[begin - net.sizes[layer] : begin, begin:end] = -weights[layer]
            hessian[begin:end, begin - net.sizes[layer] : begin] = -weights[layer].T
        if layer < last:
            hessian[begin:end, begin:end] += weights[layer + 1].sum(1).diag()
            sign[begin : begin + n // 2], sign[begin + n // 2 : end] = 1, -1
    return hessian, current, sign


def _solve(matrix: Float[Tensor, "n n"], right: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Cholesky: torch.linalg.LinAlgError, a RuntimeError, where the energy has no minimum."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def _minimum(
    hessian: Float[Tensor, "n n"], current: Float[Tensor, " n"], sign: Float[Tensor, " n"], free: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Minimum of 1/2 v H v - c v with sign v >= 0; `free`: the first guess of the units that aren't held at 0."""
    connected = hessian.diagonal() != 0
    for _ in range(100):
        free = free & connected
        v = torch.zeros_like(current)
        v[free] = _solve(hessian[free][:, free], current[free, None])[:, 0]
        slope = hessian @ v - current
        following = torch.where(free, sign * v >= 0, (sign * slope < 0) | (sign == 0)) & connected
        if torch.equal(following, free):
            return v
        free = following
    raise RuntimeError("the active sets don't settle")


class _Batch(NamedTuple):
    x: Float[Tensor, "batch n_0"]
    target: Float[Tensor, "batch n_L"]


def asked(study: Oracles, name: str) -> xr.Dataset:
    """What `experiments.ask_oracles` stores, computed under a progress bar of that name."""
    data = datasets.load(study.dataset, train=study.images, test=1)
    batch = _Batch(data.x_train.double(), one_hot(data.y_train, 10).double())
    parts = []
    with progress_bar(total=len(study.networks) + 2, desc=name) as bar, one_thread(), ensembles.nudge_too_strong():
        stopped = []
        for published in study.networks:
            stopped.append(_stopped_early(published, study.iterations, batch))
            bar.update()
        names = ["-".join(map(str, (batch.x.shape[1], *p.hidden, 10))) for p in study.networks]
        parts.append(xr.concat(stopped, "network", join="outer").assign_coords(network=names))
        parts.append(_error_over_beta(study, batch))
        bar.update()
        parts.append(_real_diodes(study, batch))
        bar.update()
    everything = xr.merge(parts, join="outer", compat="equals")
    everything["title"] = (), datasets.INFO[study.dataset].title
    checksums = {study.dataset: datasets.checksum(study.dataset)}
    title = "Relaxation, gradient and diodes against exact solutions"
    return everything.assign_attrs(store.provenance(title, settings(study), checksums))


def _twins(hidden: list[int], gain: float, n_0: int) -> tuple[DeepResistiveNetwork, DeepResistiveNetwork]:
    """One untrained circuit, the same to the last bit, to be computed in float64 and in float32."""
    double, single = (
        DeepResistiveNetwork((n_0, *hidden, 10), input_gain=gain, dtype=dtype) for dtype in (DOUBLE, torch.float32)
    )
    double.weights = [w.double() for w in single.weights]
    return double, single


def _ep(net: DeepResistiveNetwork, batch: _Batch, **settings: Any) -> list[Tensor]:
    """EP estimate for the conductances, computed in the network's precision, one float64 (n_pre, n_post) a layer."""
    estimate = gradient(net, *(t.to(net.biases[0]) for t in batch), **settings)
    return [g[0].double() for g in estimate.weights]


def _estimate(net: DeepResistiveNetwork, x: Tensor, upper: Layers, lower: Layers, beta: float) -> list[Tensor]:
    """Centred EP estimate of the conductances' gradient from two states, however they were found."""
    states = [torch.stack(pair)[None] for pair in zip(upper, lower, strict=True)]
    c = contrast(states, net.input_gain * x[None], 2 * beta)
    return [torch.cat([c.column[0] - c.product[0], c.column[0] + c.product[0]]), *(w[0] for w in c.inner)]


def _rms(layers: Layers) -> list[float]:
    return [float(v.square().mean().sqrt()) for v in layers]


def _difference(a: Layers, b: Layers) -> Layers:
    return [v - w for v, w in zip(a, b, strict=True)]


def _agreements(estimate: list[Tensor], reference: list[Tensor]) -> list[tuple[float, float]]:
    return [agreement(e, r) for e, r in zip(estimate, reference, strict=True)]


def _stopped_early(published: Solved, iterations: list[int], batch: _Batch) -> xr.Dataset:
    """One published network, untrained: distances, gradients with few iterations, responses."""
    x, target = batch
    beta = published.beta
    net, single = _twins(published.hidden, published.input_gain, x.shape[1])
    free = steady_state(net, x)
    steady = {
        "free": free,
        "nudged +": steady_state(net, x, target, beta, start=free),
        "nudged -": steady_state(net, x, target, -beta, start=free),
    }
    begin = net.relax(x, published.iterations)
    distance, stopped = [], {}
    for phase, sign in (("free", 0), ("nudged +", 1), ("nudged -", -1)):
        state, along = begin if sign else None, []
        for k in range(1, max(iterations) + 1):
            state = net.relax(x, 1, target if sign else None, sign * beta, state)
            if k in iterations:
                along.append(_rms(_difference([v[0] for v in state], steady[phase])))
            if k == published.iterations:
                stopped[phase] = [v[0] for v in state]
        distance.append(along)
    converged = _estimate(net, x, steady["nudged +"], steady["nudged -"], beta)
    exact, _ = implicit_gradient(net, x, target, free)
    estimates = [_ep(net, batch, beta=beta, iterations=k) for k in iterations]
    agreement = [[_agreements(estimate, reference) for estimate in estimates] for reference in (converged, exact)]
    settings = {"beta": beta, "iterations": published.iterations}
    rounded = _agreements(_ep(single, batch, **settings), _ep(net, batch, **settings))
    rounding = [torch.from_numpy(np.spacing(v.float().abs().numpy())).double() for v in stopped["free"]]
    dims, table = ("reference", "iteration", "layer"), np.array(agreement)
    return xr.Dataset(
        {
            "distance": (("phase", "iteration", "layer"), np.array(distance), {"units": "V"}),
            "cosine": (dims, table[..., 0], {"units": "1"}),
            "relative_error": (dims, table[..., 1], {"units": "1"}),
            "voltage": ("layer", _rms(stopped["free"]), {"units": "V"}),
            "response": ("layer", _rms(_difference(stopped["nudged +"], stopped["nudged -"])), {"units": "V"}),
            "rounding": ("layer", _rms(rounding), {"units": "V"}),
            "float32_error": ("layer", [error for _, error in rounded], {"units": "1"}),
            "published_iterations": ((), published.iterations, {"units": "1"}),
            "published_beta": ((), beta, {"units": "S"}),
        },
        {
            "phase": list(steady),
            "reference": ["converged", "exact"],
            "iteration": iterations,
            "layer": np.arange(1, len(net.sizes)),
        },
    )


def _error_over_beta(study: Oracles, batch: _Batch) -> xr.Dataset:
    """Relative error of converged EP estimates against implicit differentiation, in float64 and float32."""
    double, single = _twins(study.hidden, study.input_gain, batch.x.shape[1])
    exact, _ = implicit_gradient(double, *batch, steady_state(double, batch.x))

    def errors(net: DeepResistiveNetwork, estimator: Estimator, beta: float) -> list[float]:
        estimate = _ep(net, batch, beta=beta, iterations=study.check_iterations, estimator=estimator)
        return [error for _, error in _agreements(estimate, exact)]

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


def _real_diodes(study: Oracles, batch: _Batch) -> xr.Dataset:
    """A small network whose diodes have a forward voltage, solved by ngspice; NaN where that isn't installed."""
    shape = datasets.INFO[study.dataset].shape
    x = avg_pool2d(batch.x.unflatten(1, shape)[:, None], study.pool).flatten(1)
    net, _ = _twins(study.diode_hidden, study.diode_gain, x.shape[1])
    beta, target, layers = study.diode_beta, batch.target, len(net.sizes) - 1

    def solved(sign: int, diode: str, scale: float = 1.0) -> Layers:
        images = [
            spice.solve(
                spice.netlist(
                    net, image, 0, goal if sign else None, sign * beta, diode, scale=scale, siemens=study.siemens
                ),
                net.sizes,
            )
            for image, goal in zip(x, target, strict=True)
        ]
        return [torch.from_numpy(np.stack(layer)) for layer in zip(*images, strict=True)]

    shift = np.full((len(study.scales), layers), np.nan)
    agreement = np.full((len(study.scales), 2, layers, 2), np.nan)
    model = spice.MODELS[study.diode]
    if spice.available():
        ideal = solved(0, "ideal")
        reference = _estimate(net, x, solved(1, "ideal"), solved(-1, "ideal"), beta)
        hessian, current, sign = _quadratic(net, x, 0)
        for row, scale in enumerate(study.scales):
            free = solved(0, study.diode, scale)
            estimate = _estimate(net, x, solved(1, study.diode, scale), solved(-1, study.diode, scale), beta)
            # Kirchhoff: what the resistors carry away from a unit has come through its diode.
            through = study.siemens * sign * (torch.cat(free, 1) @ hessian - current)
            shunt = sign.abs() * model.scaled(scale).slope(through) / study.siemens
            exact, _ = implicit_gradient(net, x, target, free, shunt=shunt)
            shift[row] = np.array(_rms(_difference(free, ideal))) / np.array(_rms(ideal))
            agreement[row] = [_agreements(estimate, r) for r in (reference, exact)]
    else:
        warnings.warn("ngspice is not installed: what real diodes do is left out", stacklevel=3)
    return xr.Dataset(
        {
            "shift": (("scale", "layer"), shift, {"units": "1"}),
            "diode_cosine": (("scale", "circuit", "layer"), agreement[..., 0], {"units": "1"}),
            "diode_error": (("scale", "circuit", "layer"), agreement[..., 1], {"units": "1"}),
            "diode_sizes": ((), json.dumps(net.sizes)),
        },
        {
            "scale": study.scales,
            "forward": ("scale", [model.scaled(s).forward(1e-3) for s in study.scales], {"units": "V"}),
            "circuit": ["ideal", "real"],
            "layer": np.arange(1, layers + 1),
        },
    )
