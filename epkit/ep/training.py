"""Training by Equilibrium Propagation: epochs of steps, resumable after any of them, and what is recorded on the way.

A step is a free phase, two nudged phases, the contrast of what is read, and the update. Steps are taken a block at a
time by one of several engines, which agree up to rounding.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from . import engine as native
from .learning import NUDGES, Estimator, contrast, gradient, phases, read, spread
from .networks import Biases, DeepResistiveNetwork, Weights, member_seeds, settle, signed_input, total_conductances
from .readout import Readout

Engine = Literal["auto", "native", "compiled", "eager"]

UNITS = {"train_cost": "V2", "conductance": "S", "conductance_sd": "S", "response": "V"}

# Training images whose response and gradient a closer look takes, and the units of a layer whose conductances it does.
LOOKED_AT, UNITS_LOOKED_AT = 64, 128


@dataclass
class State:
    """Where training stands: with the network's parameters, all that is needed to go on.

    `epoch` epochs and `step` steps of the next one are done; `wrong` (count) and `cost` (V^2, summed) of each member
    are those of the training images since the last record; `history` are the records so far.
    """

    epoch: int = 0
    step: int = 0
    wrong: Int[Tensor, " member"] | int = 0
    cost: Float[Tensor, " member"] | float = 0.0
    history: list[xr.Dataset] = field(default_factory=list)


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
    validation: tuple[Float[Tensor, "k n_0"], Int[Tensor, " k"]] | None = None,
    estimator: Estimator = "centered",
    looks: int | None = None,
    state: State | None = None,
    engine: Engine = "auto",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Train `net` in place by stochastic gradient descent on the EP estimate.

    Members with equal seeds see the same batches and the same standard-normal numbers, so differences between their
    noise levels are paired. All randomness derives from (seed, epoch, step), so training that is interrupted and goes
    on from its `state` equals training that isn't.

    Args:
        net: updated in place.
        x, y: training inputs and class numbers; a last incomplete batch of an epoch is left out.
        epochs: in all, those that `state` has behind it included.
        beta, iterations: nudge (S) and iterations of each phase.
        learning_rates: one a layer, each for all members or (member,).
        readout: what the learning rule reads; None reads exactly.
        seed: of data order and noise; one for all members, or one a member.
        decay: factor on the rates after each epoch. bias_rate: factor on the rates for the biases.
        test, validation: images and classes evaluated at each record; choices are made on the latter.
        looks: records an epoch, at equal distances, each with a closer look at the network; None makes one plain record
            after each epoch.
        state: where an earlier call stopped, with `net` as it was then; brought up to date after each block of steps.
        engine: "native" (C++ on the CPU), "compiled" (torch.compile), "eager", or "auto": native on a CPU, compiled on
            a GPU, each falling back to eager with one warning.
        progress: called with the number of training images after each block of steps, when `state` holds them.

    Returns:
        Dataset over (epoch, member[, layer]), epochs being those finished, 1 after the first: `train_error` and
        `train_cost` of the predictions made before each update since the last record, `test_error` and
        `validation_error`, `activity` (share of hidden diode units that conduct, on the test images), `conductance`
        (mean of each layer, S), `diverged` (some parameter is no longer finite); with `looks` all of `_look`, too.

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
    steps = len(x) // batch_size
    if looks is not None and not 1 <= looks <= steps:
        raise ValueError(f"looks = {looks}: must be from 1 to the {steps} steps of an epoch")
    records = [0, *(steps * k // (looks or 1) for k in range(1, (looks or 1) + 1))]

    state = state or State()
    while state.epoch < epochs:
        epoch = state.epoch
        order = torch.stack([torch.randperm(len(x), generator=_generator(s, epoch)) for s in streams])
        order = order[:, : steps * batch_size].unflatten(1, (-1, batch_size)).to(like.device)
        while state.step < steps:
            number, offset = divmod(state.step, block)
            last, end = next((a, b) for a, b in itertools.pairwise(records) if b > state.step)
            end = min(end, (number + 1) * block)
            rows = order[:, state.step : end]
            noise = None
            if readout is not None and scale is not None and bool(scale.any()):
                shape = (block, 2, batch_size, per_step // (2 * batch_size))
                drawn = [readout.noise(shape, _generator(s, epoch, number)) for s in streams]
                noise = torch.stack(drawn)[:, offset : offset + rows.shape[1]].to(like)
            wrong, cost = take_steps(
                net.weights, net.biases, x, target, rows, stream, noise, scale,
                rates * decay**epoch, bias_rate, net.input_gain, nudge, iterations,
            )  # fmt: skip
            state.step, state.wrong, state.cost = end, state.wrong + wrong.cpu(), state.cost + cost.cpu()
            if end in records:
                seen = (end - last) * batch_size
                values = {"train_error": state.wrong / seen, "train_cost": state.cost / seen} | _parameters(net)
                if test is not None:
                    values |= dict(zip(("test_error", "activity"), evaluate(net, *test, iterations), strict=True))
                if validation is not None:
                    values["validation_error"] = evaluate(net, *validation, iterations)[0]
                if looks is not None:
                    values |= _look(net, x, target, batch_size, beta, iterations, estimator, readout)
                state.history.append(_record(values, epoch + end / steps if looks else epoch + 1))
                state.wrong, state.cost = 0, 0.0
            if progress is not None:
                progress(rows.shape[1] * batch_size)
        state.epoch, state.step = epoch + 1, 0
    return xr.concat(state.history, "epoch", join="exact") if state.history else xr.Dataset()


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


def _parameters(net: DeepResistiveNetwork) -> dict[str, Tensor]:
    """Mean conductance of each layer (S), and whether some parameter is no longer finite."""
    finite = [p.flatten(1).isfinite().all(1) for p in (*net.weights, *net.biases)]
    return {
        "conductance": torch.stack([w.mean((1, 2)) for w in net.weights], 1),
        "diverged": ~torch.stack(finite).all(0),
    }


def _look(
    net: DeepResistiveNetwork,
    x: Float[Tensor, "n n_0"],
    target: Float[Tensor, "n n_L"],
    batch_size: int,
    beta: float,
    iterations: int,
    estimator: Estimator,
    readout: Readout | None,
) -> dict[str, Float[Tensor, "member layer"]]:
    """What one would probe on a circuit, layer by layer, with the first LOOKED_AT training images.

    `response` (V), rms of what the nudge moves, upper phase minus lower; `signal_to_noise`, rms of the estimate for one
    batch over rms of what read-out noise adds to it, infinite without noise, taken on the conductances between a part
    of each wide layer's units; `conductance_sd` (S) and `clamped`, spread of the conductances and share of them at 0.
    One and the same noise is used for all members, at all times. What needs a nudged state is NaN for members whose
    outputs have lost so much conductance that there is none.
    """
    x, target = x[:LOOKED_AT], target[:LOOKED_AT]
    has_minimum = net.weights[-1].sum(1).amin(1) > -beta * min(NUDGES[estimator])
    nudged = copy(net)
    nudged.weights, nudged.biases = ([p[has_minimum] for p in each] for each in (net.weights, net.biases))
    states = phases(nudged, x, target, beta=beta, iterations=iterations, estimator=estimator)
    signal, added = torch.zeros(2, nudged.members, len(net.weights), dtype=x.dtype, device=x.device)
    if readout is not None:  # without noise the ratio is infinite
        noise = readout.noise((2, len(x), sum(net.sizes[1:])), torch.Generator().manual_seed(0))[None].to(x)
        as_read = read(states, readout.scale(net.members).to(x)[has_minimum], noise)
        # The estimate for a conductance needs its two ends alone, and whole gradients of wide layers would take longer
        # than all the rest. Units at equal distances, for the two halves of a layer differ.
        states_there, as_read = (
            [v[..., :: max(1, v.shape[-1] // UNITS_LOOKED_AT)] for v in each] for each in (states, as_read)
        )
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            amplified = net.input_gain * x[None, rows]
            exact, noisy = (
                spread(contrast([v[:, :, rows] for v in each], amplified, 1.0)) for each in (states_there, as_read)
            )
            signal += torch.stack([g.square().mean((1, 2)) for g in exact], 1)
            added += torch.stack([(n - g).square().mean((1, 2)) for n, g in zip(noisy, exact, strict=True)], 1)
    response = torch.stack([(v[:, 0] - v[:, 1]).square().mean((1, 2)).sqrt() for v in states], 1)
    of_all = torch.full((2, net.members, len(net.weights)), torch.nan, dtype=x.dtype, device=x.device)
    of_all[:, has_minimum] = torch.stack([response, (signal / added).sqrt()])
    return {
        "response": of_all[0],
        "signal_to_noise": of_all[1],
        "conductance_sd": torch.stack([w.std((1, 2)) for w in net.weights], 1),
        "clamped": torch.stack([(w == 0).float().mean((1, 2)) for w in net.weights], 1),
    }


def _record(values: dict[str, Tensor], epoch: int | float) -> xr.Dataset:
    """One line of the history."""
    dims = ("epoch", "member", "layer")
    members, layers = values["conductance"].shape
    columns = {
        name: (dims[: 1 + v.ndim], v[None].cpu().numpy(), {"units": UNITS.get(name, "1")}) for name, v in values.items()
    }
    return xr.Dataset(columns, {"epoch": [epoch], "member": np.arange(members), "layer": np.arange(1, layers + 1)})


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
