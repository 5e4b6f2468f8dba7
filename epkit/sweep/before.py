"""What is known of a sweep's networks before any training: voltages, what the nudge moves, and the limit predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import one_hot

from ..ep.learning import NUDGES, phases
from ..ep.networks import DeepResistiveNetwork, PhaseStates
from ..ep.prediction import CONSTANT, predict_critical_limit, signals_before_training
from ..ep.probe import one_thread, rms, squared_drop
from ..ep.readout import GaussianReadout
from ..ep.training import train
from ..messages import ParameterError
from ..readouts import Mismatch
from . import ensemble
from .parameters import Sweep, layer_sizes


def untrained(sweep: Sweep, images: int) -> xr.Dataset:
    """What `UNTRAINED` names of a sweep's networks before training, over (seed, layer)."""
    passes = []
    with one_thread(), ensemble.nudge_too_strong():
        for _, net, inputs, target in _networks(sweep, images, getattr(torch, sweep.dtype)):
            states = phases(net, inputs, target, **sweep.model_dump(include={"beta", "iterations", "estimator"}))
            voltages = net.relax(inputs, sweep.iterations), [v[:, 0] - v[:, 1] for v in states]
            root = [[rms(v) for v in layers] for layers in voltages]
            most = [[float(v.abs().max()) for v in layers] for layers in voltages]
            passes.append([*root, *most, *_offsets(sweep, net, inputs, states)])
    return _by_seed_and_layer(sweep, UNTRAINED, passes)


UNTRAINED = {
    "voltage": ("V", "rms voltage of the free state"),
    "response": ("V", "rms of what the nudge moves, upper phase minus lower"),
    "largest_voltage": ("V", "largest voltage of the free state"),
    "largest_response": ("V", "most that the nudge moves a unit"),
    "offset_limit": ("V", "offset whose error is as large as the gradient of the layer of conductances"),
    "expected_offset_limit": ("V", "the same by formula"),
}


def _offsets(
    sweep: Sweep, net: DeepResistiveNetwork, x: Tensor, states: PhaseStates
) -> tuple[list[float], list[float]]:
    """The offset (V) of every unit's reads that errs by as much as the gradient over all images, layer by layer.

    As computed with offsets of 1 V; and as sd(d_i - d_j) rms(r_i - r_j)/width over the conductances, with r the mean
    response: of (D + d)^2 the d^2 cancels in the difference of the phases, 2 D d does not.
    """
    width = sweep.beta * (NUDGES[sweep.estimator][0] - NUDGES[sweep.estimator][1])
    exact = net.contrast(x, states, width).weights
    off = net.contrast(x, Mismatch(offset=1.0).read(states, None), width).weights
    moved = [torch.zeros(1, 2 * x.shape[1]).to(x), *((v[0, 0] - v[0, 1]).mean(0, keepdim=True) for v in states)]
    ends = [1, *[2] * (len(exact) - 1)]  # of a conductance, that are read
    expected = [(k * squared_drop(a, b)) ** 0.5 / width for k, (a, b) in zip(ends, pairwise(moved), strict=True)]
    return (
        [rms(g) / rms(o - g) for g, o in zip(exact, off, strict=True)],
        [rms(g) / e for g, e in zip(exact, expected, strict=True)],
    )


def _networks(
    sweep: Sweep, images: int, dtype: torch.dtype
) -> Iterator[tuple[int, DeepResistiveNetwork, Tensor, Tensor]]:
    """Each seed with its network, and inputs and targets; in turn, for wide networks take much memory."""
    x, y = (values[:images] for values in ensemble.data(sweep, sweep.dataset[0]).train)
    sizes = layer_sizes(sweep, sweep.dataset[0])
    for seed in sweep.seed_numbers:
        net = DeepResistiveNetwork(sizes, input_gain=sweep.input_gain, seed=seed, dtype=dtype)
        yield seed, net, x.to(dtype), one_hot(y, sizes[-1]).to(dtype)


def _by_seed_and_layer(
    sweep: Sweep, named: Mapping[str, tuple[str, str]], passes: Sequence[Sequence[Sequence[float]]]
) -> xr.Dataset:
    """What the passes of all seeds told, (seed, variable, layer), with its units and what it is."""
    columns = zip(named.items(), np.array(passes).transpose(1, 0, 2), strict=True)
    return xr.Dataset(
        {key: (("seed", "layer"), values, {"units": u, "long_name": text}) for (key, (u, text)), values in columns},
        {"seed": sweep.seed_numbers, "layer": np.arange(1, len(sweep.hidden) + 2)},
    )


def predicted(sweep: Sweep, images: int) -> xr.Dataset:
    """What `predict_critical_limit` says of a sweep's first setting, over (seed, layer of conductances)."""
    name, eta, passes = sweep.dataset[0], sweep.learning_rate[0], []
    most = len(ensemble.data(sweep, name).train[0][:images]) // 2
    if sweep.batch_size > most:
        raise ParameterError(
            f"parameters: batch_size = {sweep.batch_size}: allowed are 1 to {most}, half of the images"
        )
    with one_thread(), ensemble.nudge_too_strong():
        rates = [eta * rate for rate in ensemble.layer_rates(sweep, name, "cpu")]
        for seed, net, inputs, target in _networks(sweep, images, torch.float64):
            options = sweep.model_dump(include={"beta", "iterations", "batch_size", "estimator"})
            predicted = predict_critical_limit(
                net, inputs, target, learning_rate=rates, samples=sweep.samples[0], **options
            )
            signals = signals_before_training(net, inputs, target, **options)
            layers = [[limit / CONSTANT for limit in predicted.by_layer], *(s[0].tolist() for s in signals)]
            del options["batch_size"]
            drops = _drops(net, inputs, phases(net, inputs, target, **options))
            passes.append([*layers, drops, *_walks(sweep, seed, rates, signals.noise[0], predicted.limit)])
    return _by_seed_and_layer(sweep, PREDICTED, passes)


PREDICTED = {
    "limit_over_c": ("V", "critical limit that the noise of this layer alone would set, over the constant c"),
    "conductance": ("S", "mean conductance"),
    "mean_gradient": ("V2", "rms of the mean gradient"),
    "batch_gradient": ("V2", "rms of the gradient of a batch"),
    "noise": ("V", "rms noise of the estimate from an image, over the noise of a read"),
    "voltage_drop": ("V", "rms of what lies across a conductance"),
    "walk": ("S", "rms of what noise at the predicted limit changes of a conductance in 1/eta steps of training"),
    "expected_walk": ("S", "the same, of independent steps as large as the noise before training"),
}


def _walks(
    sweep: Sweep, seed: int, rates: Sequence[float], noise: Tensor, sigma: float
) -> tuple[list[float], list[float]]:
    """How far noise carries each layer's conductances in 1/eta steps, beside a twin without it; and by formula."""
    name, samples, batch = sweep.dataset[0], sweep.samples[0], sweep.batch_size
    x, y = ensemble.data(sweep, name).train
    steps = min(round(1 / sweep.learning_rate[0]), len(x) // batch)
    net = DeepResistiveNetwork(
        layer_sizes(sweep, name), input_gain=sweep.input_gain, members=2, seed=seed, dtype=torch.float64
    )
    options = sweep.model_dump(include=ensemble.TRAINING - {"epochs", "looks"})
    readout = GaussianReadout(torch.tensor([0.0, sigma]), samples)
    n = steps * batch
    train(net, x[:n], y[:n], epochs=1, learning_rates=rates, readout=readout, seed=seed, **options)
    walks = [rms(w[1] - w[0]) for w in net.weights]
    return walks, [
        rate * float(n) * sigma * (steps / (batch * samples)) ** 0.5 for rate, n in zip(rates, noise, strict=True)
    ]


def _drops(net: DeepResistiveNetwork, x: Tensor, states: PhaseStates) -> list[float]:
    """rms over both phases, images and conductances of the drops, layer by layer (V)."""
    amplified = net.input_gain * torch.cat([x, -x], 1)
    voltages = [torch.cat([amplified, amplified]), *(v[0].flatten(0, 1) for v in states)]
    return [squared_drop(a, b) ** 0.5 for a, b in pairwise(voltages)]
