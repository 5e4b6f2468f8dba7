"""The critical limit before any training, from an untrained pass, and the read-outs that a given noise needs.

The derivation, step by step beside simulations, is in notebook 11. In a layer of conductances of
mean w, trained at a rate r:

- Noise of the reads spreads an estimate of one conductance by n sigma/sqrt(B N), sigma being the noise of a read, B the
  batch and N the reads that are averaged. In a resistive network n^2 is the mean of s (D+^2 + D-^2)/(width of the
  nudge)^2, with D the drops in the two phases and s the number of ends that are read, 1 in the first layer, else 2.
- The mean gradient, of rms g, moves a conductance by its own size in T = w/(r g) steps. This is what learning takes.
- In that time the noise, a walk, has moved it by r n sigma sqrt(T/(B N)). Training fails where that is a share of w:

      sigma_c = c sqrt(B N) sqrt(g w / r) / n,

  and, with rates that are eta relative to untrained networks (`probe.relative_rates`), as sqrt(B N/eta).

The layer that counts is the second: a network learns on the random features that are left where noise has spoiled the
first. c and its scatter come from the networks of notebooks 08 and 11 (tests/test_prediction.py takes them from their
stores); a finding about networks like those, not a law of nature. It says nothing of networks that would not learn
without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..messages import shown
from . import checks
from .learning import NUDGES, Estimator, phases
from .networks import DeepResistiveNetwork, Images, Network, Targets
from .readout import GaussianReadout, by_layer

# c, and the factor by which the limits of single networks scatter about the prediction (one standard deviation).
CONSTANT, SCATTER = 0.0649, 1.50
WIDE = 1.96  # standard deviations in a 95 % interval


class Prediction(NamedTuple):
    """A predicted critical limit, with the interval that holds the limits of 95 % of networks alike (V)."""

    limit: float
    low: float
    high: float
    by_layer: tuple[float, ...]  # what the formula gives for each layer of conductances; the second counts


class Readouts(NamedTuple):
    """How many reads to average, with the interval that the prediction's implies."""

    needed: int
    low: int
    high: int


class Signals(NamedTuple):
    """What an untrained pass tells of each layer of conductances, (member, layer)."""

    conductance: Float[Tensor, "member layer"]  # mean (S)
    mean_gradient: Float[Tensor, "member layer"]  # rms over the conductances of the gradient's expectation
    batch_gradient: Float[Tensor, "member layer"]  # rms of the gradient of a batch
    noise: Float[Tensor, "member layer"]  # rms of what reads at sigma = 1 V add to the estimate from a single image


def predict_critical_limit(
    net: Network, x: Images, t: Targets, *, beta: float, iterations: int, learning_rate: float | Sequence[float],
    batch_size: int, samples: int = 1, estimator: Estimator = "centered",
) -> Prediction:  # fmt: skip
    """The read-out uncertainty sigma (V) at which training of this untrained network will fail half way.

    Half way means: the test error half way between its lowest level and chance. Takes seconds, trains nothing.

    Args:
        net: untrained, resistive, of two layers of conductances or more; its members' predictions are averaged
            geometrically.
        x, t: training images (batch, n_0), some hundred and at least two batches, and one-hot targets (V).
        beta, iterations, estimator: nudge (S), iterations of a phase, and estimate, as in training.
        learning_rate: eta relative to untrained networks, as in `epkit.run`; or a rate for each layer, as in `train`.
        batch_size, samples: images of a step, B; reads that are averaged, N.

    Raises:
        ValueError: for an argument that makes no training, by its name, or where the gradient vanishes.
    """
    signals = signals_before_training(
        net, x, t, beta=beta, iterations=iterations, batch_size=batch_size, estimator=estimator
    )
    layers = signals.conductance.shape[1]
    given = np.float64(learning_rate) if isinstance(learning_rate, float) else learning_rate  # not to be float32
    rates = checks.tensor("learning_rate", given).double()
    if rates.shape not in ((), (layers,)) or not bool((rates > 0).all()):
        raise ValueError(f"learning_rate = {shown(learning_rate)}: must be a number > 0, or {layers} of them")
    if not rates.ndim:
        rates = rates * signals.conductance / signals.batch_gradient
    reads = batch_size * checks.count("samples", samples, most=10**12)
    ratio = (signals.mean_gradient * signals.conductance / rates).sqrt() / signals.noise
    by_layer = CONSTANT * reads**0.5 * ratio.log().mean(0).exp()
    if not bool(by_layer.isfinite().all()) or not bool((by_layer > 0).all()):
        raise ValueError(f"beta = {beta}: the gradient before training vanishes or is not finite")
    limit = float(by_layer[1])
    return Prediction(limit, limit / SCATTER**WIDE, limit * SCATTER**WIDE, tuple(by_layer.tolist()))


def readouts_needed(
    net: Network, x: Images, t: Targets, *, sigma: float, beta: float, iterations: int,
    learning_rate: float | Sequence[float], batch_size: int, margin: float = 3.0, estimator: Estimator = "centered",
) -> Readouts:  # fmt: skip
    """Reads N to average so that sigma/sqrt(N) stays a factor `margin` below the predicted limit; at least 1.

    At the limit itself (`margin` 1) half of what would be learned is lost. Arguments as in `predict_critical_limit`;
    sigma is the standard deviation of a read (V). Holds for reads that are independent of one another.
    """
    sigma = checks.number("sigma", sigma, least=0.0, most=1e9)
    margin = checks.number("margin", margin, above=0.0, most=1e9)
    prediction = predict_critical_limit(
        net, x, t, beta=beta, iterations=iterations, learning_rate=learning_rate, batch_size=batch_size,
        estimator=estimator,
    )  # fmt: skip
    limits = prediction.limit, prediction.high, prediction.low
    return Readouts(*(max(1, ceil((margin * sigma / limit) ** 2)) for limit in limits))


def signals_before_training(
    net: Network, x: Images, t: Targets, *, beta: float, iterations: int, batch_size: int, estimator: Estimator
) -> Signals:
    """What the formula needs of each layer, in float64."""
    checks.choice("estimator", estimator, tuple(NUDGES))
    if not isinstance(net, DeepResistiveNetwork):
        raise ValueError(f"net is a {type(net).__name__}: its constant c is of resistive networks")
    if len(net.weights) < 2:
        raise ValueError(f"sizes = {net.sizes}: a hidden layer is needed, for its conductances are what counts")
    x = checks.images(net, x)
    t = checks.targets(net, t, x.shape[-2], "t")
    checks.names_classes(t, "t")
    images, beta = x.shape[-2], checks.number("beta", beta, above=0.0)
    batch_size = checks.count("batch_size", batch_size, most=images // 2)
    twin = copy(net)
    twin.weights, twin.biases = ([p.double() for p in ps] for ps in (net.weights, net.biases))
    x, t = x.double(), t.double()
    states = phases(twin, x, t, beta=beta, iterations=iterations, estimator=estimator)
    width = beta * (NUDGES[estimator][0] - NUDGES[estimator][1])
    all_images = twin.contrast(x, states, width).weights
    of_all, of_batch = (torch.zeros(net.members, len(all_images)).to(x) for _ in range(2))
    of_all += torch.stack([g.square().mean((1, 2)) for g in all_images], 1)
    batches = torch.arange(images // batch_size * batch_size).split(batch_size)
    for rows in batches:
        estimate = twin.contrast(x[..., rows, :], [v[:, :, rows] for v in states], width).weights
        of_batch += torch.stack([g.square().mean((1, 2)) for g in estimate], 1) / len(batches)
    # both hold the variance between images, by a B-th and an M-th part: take it out
    mean = ((images * of_all - batch_size * of_batch) / (images - batch_size)).clamp_min(0.01 * of_all)
    # noise so small that it enters linearly
    sigma = 1e-3 * min(float((v[:, 0] - v[:, 1]).square().mean().sqrt()) for v in states) or 1.0
    readout = GaussianReadout(sigma)
    xi = readout.noise((1, 2, images, sum(net.sizes[1:])), torch.Generator().manual_seed(0))
    noisy = twin.contrast(x, readout.read(states, by_layer(xi.to(x), states)), width).weights  # type: ignore[union-attr]
    added = [
        (a - b).square().mean((1, 2)).sqrt() * (images**0.5 / sigma) for a, b in zip(noisy, all_images, strict=True)
    ]
    return Signals(
        torch.stack([w.mean((1, 2)) for w in twin.weights], 1),
        mean.sqrt(),
        of_batch.sqrt(),
        torch.stack(added, 1),
    )
