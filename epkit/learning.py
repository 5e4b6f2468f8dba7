"""Equilibrium Propagation: the gradient estimate from two phases, and training with it.

Free phase, nudged phase, contrast, update (arXiv:1602.05179; for resistive networks arXiv:2402.11674). The estimate for
one conductance is local: half the squared voltage drop in one phase minus that in the other, over the difference of the
nudges. Everything the rule sees of the voltages passes through a read-out model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from . import native
from .networks import (
    Biases,
    DeepResistiveNetwork,
    PhaseStates,
    Weights,
    batch_of,
    member_seeds,
    settle,
    signed_input,
    total_conductances,
)
from .uncertainty import Readout

Estimator = Literal["centered", "positive", "negative"]
Engine = Literal["auto", "native", "compiled", "eager"]

# Nudge of the two phases in units of beta, upper first: what the contrast subtracts is upper minus lower.
NUDGES: dict[Estimator, tuple[int, int]] = {"centered": (1, -1), "positive": (1, 0), "negative": (0, -1)}


class Gradient(NamedTuple):
    """Batch means of the estimate of dC/dW (V^2, one (member, n_pre, n_post) a layer) and dC/db (V)."""

    weights: Weights
    biases: Biases


class Contrast(NamedTuple):
    """The estimate before it is spread over the doubled input conductances.

    With input rows +x and -x the estimate of the first layer is `column - product` and `column + product`.
    """

    product: Float[Tensor, "member n_0 n_1"]
    column: Float[Tensor, "member n_1"]
    inner: Weights
    biases: Biases


def gradient(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "*member batch n_0"],
    target: Float[Tensor, "*member batch n_L"],
    *,
    beta: float,
    iterations: int,
    estimator: Estimator = "centered",
    readout: Readout | None = None,
    generator: torch.Generator | None = None,
) -> Gradient:
    """EP estimate of the gradient of 1/2 |v_L - target|^2, averaged over the batch.

    Args:
        net: left unchanged.
        x, target: inputs and desired output voltages (V), with or without a member axis.
        beta: nudging conductance, > 0 (S).
        iterations: of the free phase, and of each nudged phase from the free state.
        estimator: "centered" (+beta against -beta, error O(beta^2)), "positive" (+beta against 0) or "negative"
            (0 against -beta), error O(beta).
        readout: what is read of the voltages; None reads them exactly. Members share the random numbers.
        generator: of the read-out noise; None uses torch's global one.

    Raises:
        ValueError: for beta <= 0, beta too large for the outputs' conductances, or another estimator.
    """
    if not beta > 0:
        raise ValueError(f"beta = {beta}: must be > 0, the estimator's name carries the sign")
    if estimator not in NUDGES:
        raise ValueError(f"estimator = {estimator!r}: allowed are {', '.join(map(repr, NUDGES))}")
    free = net.relax(x, iterations)
    phases = [
        net.relax(x, iterations, target=target, beta=sign * beta, start=free) if sign else free
        for sign in NUDGES[estimator]
    ]
    states = [torch.stack(pair, 1) for pair in zip(*phases, strict=True)]
    if readout is not None:
        units = sum(net.sizes[1:])
        noise = readout.noise((2, states[0].shape[2], units), generator)[None].to(states[0])
        states = read(states, readout.scale(net.members).to(states[0]), noise)
    width = beta * (NUDGES[estimator][0] - NUDGES[estimator][1])
    c = contrast(states, net.input_gain * batch_of(x), width)
    first = torch.cat([c.column[:, None] - c.product, c.column[:, None] + c.product], 1)
    return Gradient([first, *c.inner], c.biases)


def backpropagated(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "*member batch n_0"],
    target: Float[Tensor, "*member batch n_L"],
    *,
    iterations: int,
) -> Weights:
    """The gradient that EP estimates, by autograd through the free phase unrolled: an oracle, not a learning rule.

    With enough iterations for the steady state it is the limit of the estimates for beta -> 0 (arXiv:1602.05179).
    """
    twin = copy(net)
    twin.weights = [w.detach().requires_grad_() for w in net.weights]
    output = twin.relax(x, iterations)[-1]
    cost = 0.5 * (output - target).square().sum() / output.shape[1]
    return list(torch.autograd.grad(cost, twin.weights))


def agreement(estimate: Tensor, reference: Tensor) -> tuple[float, float]:
    """Cosine, and size of the difference relative to the reference, of a gradient estimate."""
    cosine = (estimate * reference).sum() / (estimate.norm() * reference.norm())
    return float(cosine), float((estimate - reference).norm() / reference.norm())


def read(
    states: PhaseStates, scale: Float[Tensor, " member"], noise: Float[Tensor, "#member 2 batch units"]
) -> PhaseStates:
    """Voltages as read: v + scale * noise, the noise split over the layers."""
    parts = noise.split([v.shape[-1] for v in states], -1)
    return [v + scale[:, None, None, None] * xi for v, xi in zip(states, parts, strict=True)]


def contrast(states: PhaseStates, amplified: Float[Tensor, "#member batch n_0"], width: float | Tensor) -> Contrast:
    """Half the squared drops in the upper phase minus those in the lower, over `width`, averaged over the batch.

    Written in sums and differences of the two phases: for drops a - b,
    1/2 d(a - b)^2 = m_a d_a + m_b d_b - (m_a d_b + d_a m_b) with m the mean and d the difference of the phases. One
    product of rank 2 batch and two vectors a layer, and no cancellation between large, nearly equal products.
    """
    scale = 1 / (width * amplified.shape[-2])
    difference = [v[:, 0] - v[:, 1] for v in states]
    mean = [0.5 * (v[:, 0] + v[:, 1]) for v in states]
    square = [scale * (m * d).sum(1) for m, d in zip(mean, difference, strict=True)]
    product = amplified.mT @ (scale * difference[0])
    inner = []
    for pre in range(len(states) - 1):
        post = pre + 1
        cross = torch.cat([mean[pre], difference[pre]], 1).mT @ torch.cat([difference[post], mean[post]], 1)
        inner.append(square[pre][:, :, None] + square[post][:, None] - scale * cross)
    return Contrast(product, square[0], inner, [-scale * d.sum(1) for d in difference])


def train(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "n n_0"],
    y: Int[Tensor, " n"],
    *,
    epochs: int,
    batch_size: int,
    beta: float,
    iterations: int,
    learning_rates: Sequence[float | Float[Tensor, " member"]],
    readout: Readout | None = None,
    seed: int | Sequence[int] = 0,
    decay: float = 0.99,
    bias_rate: float = 1.0,
    test: tuple[Float[Tensor, "m n_0"], Int[Tensor, " m"]] | None = None,
    estimator: Estimator = "centered",
    first_epoch: int = 0,
    engine: Engine = "auto",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Train `net` in place by stochastic gradient descent on the EP estimate.

    Members with equal seeds see the same batches and the same standard-normal numbers, so differences between their
    noise levels are paired. All randomness derives from (seed, epoch): two calls of one epoch, the second with
    `first_epoch=1`, equal one call of two.

    Args:
        net: updated in place.
        x, y: training inputs and class numbers; a last incomplete batch of an epoch is left out.
        beta, iterations: nudge (S) and iterations of each phase.
        learning_rates: one a layer, each for all members or (member,).
        readout: what the learning rule reads; None reads exactly.
        seed: of data order and noise; one for all members, or one a member.
        decay: factor on the rates after each epoch. bias_rate: factor on the rates for the biases.
        test: images and classes evaluated after each epoch.
        first_epoch: epochs that `net` has been trained before.
        engine: "native" (C++ on the CPU), "compiled" (torch.compile), "eager", or "auto": native on a CPU, compiled on
            a GPU, each falling back to eager with one warning.
        progress: called with the number of training images after each block of steps.

    Returns:
        Dataset over (epoch, member[, layer]), epoch counted from 1: `train_error` and `train_cost` of the predictions
        made before each update, `test_error`, `activity` (share of hidden diode units that conduct, on the test
        images), `conductance` (mean of each layer, S), `diverged` (some parameter is no longer finite).

    Raises:
        ValueError: for rates that do not fit the layers, sizes that do not fit the data, or a beta out of range.
    """
    if len(learning_rates) != len(net.weights):
        raise ValueError(f"learning_rates has {len(learning_rates)} entries for {len(net.weights)} layers")
    if x.shape[1] != net.sizes[0] or int(y.max()) >= net.sizes[-1]:
        raise ValueError(
            f"sizes = {net.sizes}: the data have {x.shape[1]} inputs and at least {int(y.max()) + 1} classes"
        )
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size = {batch_size}: must be from 1 to the {len(x)} training images")
    like = net.biases[0]
    seeds = member_seeds(seed, net.members)
    streams = sorted(set(seeds))
    stream = torch.tensor([streams.index(s) for s in seeds], device=like.device)
    x, target = x.to(like), one_hot(y, net.sizes[-1]).to(like)
    rates = torch.stack([torch.as_tensor(r).to(like).expand(net.members) for r in learning_rates])
    nudge = beta * torch.tensor(NUDGES[estimator]).to(like)
    scale = None if readout is None else readout.scale(net.members).to(like)
    per_step = 2 * batch_size * sum(net.sizes[1:])
    # Steps a call: enough to pay for the call, few enough for their noise to stay small.
    block = max(16, 2**20 // per_step)
    take_steps = _engine(engine, like.device)

    history = []
    for epoch in range(first_epoch, first_epoch + epochs):
        order = torch.stack([torch.randperm(len(x), generator=_generator(s, epoch)) for s in streams])
        order = order[:, : len(x) // batch_size * batch_size].unflatten(1, (-1, batch_size)).to(like.device)
        wrong, cost = torch.zeros(net.members, dtype=torch.int64), torch.zeros(net.members, dtype=torch.float64)
        for number, rows in enumerate(order.split(block, 1)):
            noise = None
            if readout is not None and scale is not None and bool(scale.any()):
                shape = (block, 2, batch_size, per_step // (2 * batch_size))
                drawn = [readout.noise(shape, _generator(s, epoch, number)) for s in streams]
                noise = torch.stack(drawn)[:, : rows.shape[1]].to(like)
            wrong_now, cost_now = take_steps(
                net.weights, net.biases, x, target, rows, stream, noise, scale,
                rates * decay**epoch, bias_rate, net.input_gain, nudge, iterations,
            )  # fmt: skip
            wrong += wrong_now.cpu()
            cost += cost_now.cpu()
            if progress is not None:
                progress(rows.shape[1] * batch_size)
        seen = order[0].numel()
        history.append(_record(net, epoch + 1, wrong / seen, cost / seen, test, iterations))
    return xr.concat(history, "epoch", join="exact") if history else xr.Dataset()


def relative_rates(
    sizes: Sequence[int],
    x: Float[Tensor, "n n_0"],
    y: Int[Tensor, " n"],
    *,
    input_gain: float,
    beta: float,
    iterations: int,
    batch_size: int,
    references: int = 8,
    batches: int = 32,
    device: str | torch.device = "cpu",
) -> Float[Tensor, " layer"]:
    """Learning rate of each layer at which a step moves it by its own mean conductance: mean(W_l) / rms(G_l).

    G is the gradient before training, on batches like those of training; a study's rates are eta times these. The rms
    differs a lot from one random network to the next, so its geometric mean over `references` untrained networks is
    taken, and every seed of a sweep trains with the same rates.
    """
    net = DeepResistiveNetwork(sizes, input_gain=input_gain, members=references, seed=range(references), device=device)
    x, target = x.to(device), one_hot(y.to(device), sizes[-1]).float()
    power = torch.zeros(len(net.weights), references)
    for images, classes in list(zip(x.split(batch_size), target.split(batch_size), strict=True))[:batches]:
        estimate = gradient(net, images, classes, beta=beta, iterations=iterations)
        power += torch.stack([g.square().mean((1, 2)) for g in estimate.weights]).cpu()
    rms = (power / min(batches, -(-len(x) // batch_size))).log().mean(1).mul(0.5).exp()
    return torch.stack([w.mean().cpu() for w in net.weights]) / rms


def evaluate(
    net: DeepResistiveNetwork, x: Float[Tensor, "n n_0"], y: Int[Tensor, " n"], iterations: int
) -> tuple[Float[Tensor, " member"], Float[Tensor, "member layer"]]:
    """Share of images classified wrongly by the free outputs, and share of diode units that conduct in each layer.

    A member whose outputs are not finite classifies nothing rightly. The output layer has no diodes: NaN.
    """
    like = net.biases[0]
    wrong = torch.zeros(net.members, device=like.device)
    active = torch.zeros(net.members, len(net.biases), device=like.device)
    # Some 64 MB of voltages at a time.
    chunk = max(1, 2**24 // (net.members * sum(net.sizes[1:])))
    with one_thread() if net.members * min(chunk, len(x)) * max(net.sizes[1:]) < 2**20 else nullcontext():
        for images, classes in zip(x.split(chunk), y.split(chunk), strict=True):
            states = net.relax(images.to(like), iterations)
            right = (states[-1].argmax(-1) == classes.to(like.device)) & states[-1].isfinite().all(-1)
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


def torch_steps(
    weights: Weights,
    biases: Biases,
    x: Float[Tensor, "n n_0"],
    target: Float[Tensor, "n n_L"],
    rows: Int[Tensor, "stream step batch"],
    stream: Int[Tensor, " member"],
    noise: Float[Tensor, "stream step 2 batch units"] | None,
    scale: Float[Tensor, " member"] | None,
    rates: Float[Tensor, "layer member"],
    bias_rate: float,
    gain: float,
    nudge: Float[Tensor, " 2"],
    iterations: int,
    step: Callable[..., Tensor] | None = None,
) -> tuple[Int[Tensor, " member"], Float[Tensor, " member"]]:
    """Training steps one after the other in torch; the reference that `native.steps` equals up to rounding.

    Returns the number of wrong predictions and the summed cost of each member, made before each update.
    """
    step = step or training_step
    members = len(stream)
    wrong = torch.zeros(members, dtype=torch.int64, device=x.device)
    cost = torch.zeros(members, dtype=torch.float64, device=x.device)
    signed = signed_input(weights[0])
    shared = rows.shape[0] == 1
    for k in range(rows.shape[1]):
        batch = rows[:, k] if shared else rows[stream, k]
        xi = None if noise is None else noise[:, k] if shared else noise[stream, k]
        output = step(
            weights, biases, signed, gain * x[batch], target[batch], xi, scale,
            rates, bias_rate * rates, nudge, iterations,
        )  # fmt: skip
        wrong += (output.argmax(-1) != target[batch].argmax(-1)).sum(1)
        cost += 0.5 * ((output - target[batch]) ** 2).sum((1, 2))
    return wrong, cost


def training_step(
    weights: Weights,
    biases: Biases,
    signed: Float[Tensor, "member n_0 n_1"],
    amplified: Float[Tensor, "#member batch n_0"],
    target: Float[Tensor, "#member batch n_L"],
    noise: Float[Tensor, "#member 2 batch units"] | None,
    scale: Float[Tensor, " member"] | None,
    rates: Float[Tensor, "layer member"],
    bias_rates: Float[Tensor, "layer member"],
    nudge: Float[Tensor, " 2"],
    iterations: int,
) -> Float[Tensor, "member batch n_L"]:
    """Free phase, nudged phases, contrast of what is read, update: one step, in place.

    Updates `weights`, `biases` and `signed` (W+ - W- of the input layer, kept for the next step). Returns the free
    outputs (V), which are the predictions before the update.
    """
    inner, totals, drive = weights[1:], total_conductances(weights), (amplified @ signed)[:, None]
    free = settle(inner, biases, totals, drive, iterations)
    nudged = settle(
        inner, biases, totals, drive, iterations, states=free, target=target[:, None], beta=nudge[:, None, None]
    )
    states = [v.expand(-1, 2, drive.shape[2], -1) for v in nudged]
    if noise is not None and scale is not None:
        states = read(states, scale, noise)
    estimate = contrast(states, amplified, nudge[0] - nudge[1])

    halves = weights[0].unflatten(1, (2, -1))
    sign = torch.tensor([1.0, -1.0]).to(drive)[:, None, None]
    halves.sub_(rates[0][:, None, None, None] * (estimate.column[:, None, None] - sign * estimate.product[:, None]))
    halves.clamp_min_(0)
    signed.copy_(halves[:, 0] - halves[:, 1])
    for w, g, rate in zip(inner, estimate.inner, rates[1:], strict=True):
        w.sub_(rate[:, None, None] * g).clamp_min_(0)
    for b, g, rate in zip(biases, estimate.biases, bias_rates, strict=True):
        b.sub_(rate[:, None] * g)
    return free[-1][:, 0]


def _record(
    net: DeepResistiveNetwork,
    epoch: int,
    train_error: Tensor,
    train_cost: Tensor,
    test: tuple[Tensor, Tensor] | None,
    iterations: int,
) -> xr.Dataset:
    """One epoch's line of the history."""
    parameters = [*net.weights, *net.biases]
    data = {
        "train_error": (("epoch", "member"), train_error[None].numpy()),
        "train_cost": (("epoch", "member"), train_cost[None].numpy(), {"units": "V2"}),
        "conductance": (
            ("epoch", "member", "layer"),
            torch.stack([w.mean((1, 2)) for w in net.weights], 1)[None].cpu().numpy(),
            {"units": "S"},
        ),
        "diverged": (
            ("epoch", "member"),
            ~torch.stack([p.flatten(1).isfinite().all(1) for p in parameters]).all(0)[None].cpu().numpy(),
        ),
    }
    if test is not None:
        error, active = evaluate(net, *test, iterations)
        data["test_error"] = (("epoch", "member"), error[None].cpu().numpy())
        data["activity"] = (("epoch", "member", "layer"), active[None].cpu().numpy())
    coords = {"epoch": [epoch], "member": np.arange(net.members), "layer": np.arange(1, len(net.sizes))}
    return xr.Dataset(data, coords)


def _generator(seed: int, *place: int) -> torch.Generator:
    """The stream of one place of one seed's training: (epoch) for the data order, (epoch, block) for the noise."""
    state = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _engine(engine: Engine, device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """The function that takes training steps: `native.steps` or `torch_steps`."""
    if engine == "auto":
        engine = "native" if device.type == "cpu" else "compiled"
    if engine == "native":
        if device.type != "cpu":
            raise ValueError(f"engine = 'native' runs on the CPU, the network is on {device}")
        if native.library() is not None:
            return native.steps
        return torch_steps
    if engine == "compiled":
        return partial(torch_steps, step=_compiled_step())
    return torch_steps


@cache
def _compiled_step() -> Callable[..., Tensor]:
    """`training_step` under torch.compile; eager, with one warning, where it can't be compiled."""
    compiled = torch.compile(training_step, dynamic=False)
    usable = True

    def step(*args: Any) -> Tensor:
        nonlocal usable
        if usable:
            try:
                return compiled(*args)
            except torch._dynamo.exc.TorchDynamoException as error:
                # Raised while compiling, so before anything was updated.
                usable = False
                warnings.warn(f"torch.compile failed, training goes on uncompiled and slower: {error}", stacklevel=2)
        return training_step(*args)

    return step
