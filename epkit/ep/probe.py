"""What a probe would show of a network, layer by layer, while it trains; and the learning rates that suit it.

Every function leaves the network as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ..messages import shown
from . import checks
from .learning import NUDGES, Estimator, gradient, phases
from .networks import DeepResistiveNetwork, Network
from .readout import Readout, by_layer
from .schedule import drawn, estimated

# Training images whose response and gradient a probe takes, and the units of a layer whose parameters it does.
PROBE_IMAGES, PROBE_UNITS = 64, 128


def evaluate(
    net: Network, x: Float[Tensor, "n n_0"], y: Int[Tensor, " n"], iterations: int
) -> tuple[Float[Tensor, " member"], Float[Tensor, "member layer"]]:
    """Share of images classified wrongly by the free outputs, and share of units of each layer that are not at 0.

    In a resistive network the latter are the diode units that conduct. A member whose outputs are not finite classifies
    nothing rightly. The output layer has no diodes: NaN. Raises ValueError for images or classes that don't fit.
    """
    x, y = checks.labelled(net, (x, y))
    like = net.biases[0]
    wrong = torch.zeros(net.members, device=like.device)
    active = torch.zeros(net.members, len(net.biases), device=like.device)
    # Some 64 MB of voltages at a time.
    chunk = max(1, 2**24 // (net.members * sum(net.sizes[1:])))
    with one_thread() if net.members * min(chunk, len(x)) * max(net.sizes[1:]) < 2**20 else nullcontext():
        for images, labels in zip(x.split(chunk), y.split(chunk), strict=True):
            states = net.relax(images, iterations)
            right = (states[-1].argmax(-1) == labels) & states[-1].isfinite().all(-1)
            wrong += (~right).sum(1)
            active += torch.stack([(v != 0).float().mean(2).sum(1) for v in states], 1)
    active[:, -1] = torch.nan
    return wrong / len(x), active / len(x)


@contextmanager
def one_thread() -> Iterator[None]:
    """For products so small that threads would mostly wait for one another, on a busy machine very long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rms(values: Tensor) -> float:
    """Root mean square, in float64."""
    return float(values.double().square().mean().sqrt())


def squared_drop(v: Float[Tensor, "n _i"], w: Float[Tensor, "n _j"]) -> float:
    """Mean of (v_i - w_j)^2 over images and all pairs of units, without a matrix of these."""
    return float((v.square().mean(1) + w.square().mean(1) - 2 * v.mean(1) * w.mean(1)).mean())


def parameters(net: Network) -> dict[str, Tensor]:
    """`conductance` (S), mean weight of each layer, and `diverged`: some parameter of the member is not finite."""
    finite = [p.flatten(1).isfinite().all(1) for p in (*net.weights, *net.biases)]
    return {
        "conductance": torch.stack([w.mean((1, 2)) for w in net.weights], 1),
        "diverged": ~torch.stack(finite).all(0),
    }


def layers(
    net: Network, x: Float[Tensor, "n n_0"], target: Float[Tensor, "n n_L"], batch_size: int,
    beta: float, iterations: int, estimator: Estimator, readout: Readout | None, images: int = 0,
) -> dict[str, Float[Tensor, "member layer"]]:  # fmt: skip
    """Response, signal to noise and parameters of each layer, with the first PROBE_IMAGES training images.

    `response` (V), rms of what the nudge moves, upper phase minus lower; `signal_to_noise`, rms of the estimate for one
    batch over rms of what the read-out adds to it, infinite without noise, taken on the weights between a part of each
    wide layer's units; `conductance_sd` (S) and `clamped`, spread of the weights and share of them at 0. One and the
    same noise is used for all members, at all times; a schedule's is that after so many `images` of training. What
    needs a nudged state is NaN for members that have none.
    """
    x, target = x[:PROBE_IMAGES], target[:PROBE_IMAGES]
    steady = net.has_minimum(beta * min(NUDGES[estimator])) & ~parameters(net)["diverged"]
    missing = torch.full((net.members, len(net.weights)), torch.nan, dtype=x.dtype, device=x.device)
    values = {"response": missing, "signal_to_noise": missing.clone()}
    if steady.any():
        nudged = copy(net)
        nudged.weights, nudged.biases = ([p[steady] for p in ps] for ps in (net.weights, net.biases))
        states = phases(nudged, x, target, beta=beta, iterations=iterations, estimator=estimator)
        response = [(v[:, 0] - v[:, 1]).square().mean((1, 2)).sqrt() for v in states]
        values["response"][steady] = torch.stack(response, 1)
        values["signal_to_noise"][steady] = _signal_to_noise(nudged, steady, x, states, batch_size, readout, images)
    return values | {
        "conductance_sd": torch.stack([w.std((1, 2)) for w in net.weights], 1),
        "clamped": torch.stack([(w == 0).float().mean((1, 2)) for w in net.weights], 1),
    }


def _signal_to_noise(
    net: Network, steady: Bool[Tensor, " member"], x: Float[Tensor, "n n_0"],
    states: list[Float[Tensor, "_steady 2 n _n"]], batch_size: int, readout: Readout | None, images: int,
) -> Float[Tensor, "_steady layer"]:  # fmt: skip
    """rms of the estimate for a batch over rms of what the read-out adds; net and states: of the steady members."""
    signal, added = torch.zeros(2, len(states[0]), len(states), dtype=x.dtype, device=x.device)
    if readout is not None:  # without noise the ratio is infinite
        shape = 2, len(x), sum(net.sizes[1:])
        noise = drawn(readout, shape, torch.Generator().manual_seed(0), net.sizes[1:], images)
        whole = [v.new_full((len(steady), *v.shape[1:]), torch.nan).index_put((steady,), v) for v in states]
        noisy = readout.read(whole, by_layer(None if noise is None else noise.to(x), states))
        exact = net.sampled(states, PROBE_UNITS)
        noisy = net.sampled([v[steady] for v in noisy], PROBE_UNITS)
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            of_batch, read = ([v[:, :, rows] for v in vs] for vs in (exact, noisy))
            contrast = partial(net.contrast, x[rows], width=1.0)
            pair = contrast(of_batch).weights, estimated(readout, contrast, read, of_batch).weights
            signal += torch.stack([g.square().mean((1, 2)) for g in pair[0]], 1)
            added += torch.stack([(n - g).square().mean((1, 2)) for g, n in zip(*pair, strict=True)], 1)
    return (signal / added).sqrt()


def relative_rates(
    sizes: Sequence[int],
    x: Float[Tensor, "n n_0"],
    y: Int[Tensor, " n"],
    *,
    beta: float,
    batch_size: int,
    batches: int = 32,
    **options: Any,
) -> Float[Tensor, " layer"]:
    """Learning rate of each layer at which a step moves it by its own mean weight: mean(|W_l|) / rms(G_l).

    G is the gradient before training, on batches like those of training; a study's rates are eta times these. The rms
    differs a lot from one random network to the next, so its geometric mean over `references` untrained networks is
    taken, and every seed of a sweep trains with the same rates. Options: input_gain, iterations, references (8),
    network (DeepResistiveNetwork), device. Raises ValueError where the gradient vanishes or isn't finite.
    """
    rates = _calibrated(sizes, x, y, torch.float32, beta, batch_size, batches, **options)
    # Where float32 can't tell what so small a nudge moves, float64 can.
    coarse, fine = (_calibrated(sizes, x, y, t, beta, batch_size, 1, **options) for t in (torch.float32, torch.float64))
    if not torch.allclose(coarse.double(), fine, rtol=0.01, atol=0.0):
        rates = _calibrated(sizes, x, y, torch.float64, beta, batch_size, batches, **options)
    if not bool((rates.isfinite() & (rates > 0)).all()):
        raise ValueError(
            f"beta = {beta}: the gradient before training vanishes or is not finite, so no learning rate suits it "
            f"(rates {shown(rates.tolist())}); a larger beta, or another gain, is needed"
        )
    return rates


def _calibrated(
    sizes: Sequence[int],
    x: Float[Tensor, "n n_0"],
    y: Int[Tensor, " n"],
    dtype: torch.dtype,
    beta: float,
    batch_size: int,
    batches: int,
    *,
    input_gain: float,
    iterations: int,
    references: int = 8,
    network: Callable[..., Any] = DeepResistiveNetwork,
    device: str | torch.device = "cpu",
) -> Float[Tensor, " layer"]:
    """The rates from networks of one type and some batches."""
    seeds = list(range(checks.count("references", references)))
    net = network(sizes, input_gain=input_gain, members=references, seed=seeds, dtype=dtype, device=device)
    x, y = checks.labelled(net, (x, y))
    checks.count("batch_size", batch_size, most=len(x))
    target = one_hot(y, net.sizes[-1]).to(net.biases[0])
    power, count = torch.zeros(len(net.weights), references), min(batches, -(-len(x) // batch_size))
    for images, goals in list(zip(x.split(batch_size), target.split(batch_size), strict=True))[:count]:
        estimate = gradient(net, images, goals, beta=beta, iterations=iterations)
        power += torch.stack([g.square().mean((1, 2)) for g in estimate.weights]).cpu()
    rms = (power / count).log().mean(1).mul(0.5).exp()
    return torch.stack([w.abs().mean().cpu() for w in net.weights]) / rms
