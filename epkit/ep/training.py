"""Training by Equilibrium Propagation: epochs of steps, resumable after any block of them, and what is recorded.

Steps (`learning.step`) are taken a block at a time by one of several engines, which agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ..messages import shown
from . import checks, probe
from .engine import Block, Engine, Steps, choose
from .learning import NUDGES, Estimator, Rule, check_minimum, check_phases, relaxed
from .networks import Gradient, Network
from .optimisers import Make, Optimiser
from .readout import Readout, at, by_layer, changes, draw
from .schedule import Adaptive, Schedule

UNITS = {"train_cost": "V2", "conductance": "S", "conductance_sd": "S", "response": "V"}
LayerRate = float | Float[Tensor, " member"]
Labelled = tuple[Float[Tensor, "_m n_0"], Int[Tensor, " _m"]]  # images and class numbers


class Plan(NamedTuple):
    """What training sees, in which order; `records` are the steps of an epoch after which something is recorded."""

    x: Float[Tensor, "n n_0"]
    target: Float[Tensor, "n n_L"]  # one-hot
    tests: Mapping[str, tuple[Tensor, Tensor]]  # images and classes that records test
    epochs: int
    batch_size: int
    decay: float
    records: list[int]
    seeds: tuple[int, ...]  # a member's, of data order and noise
    warm_up: int  # images over which the rates rise


@dataclass
class State:
    """Where training stands: with the network's parameters, all that is needed to go on.

    `epoch` epochs and `step` steps of the next one are done; `wrong` (count) and `cost` (V^2, summed) of each member
    are those of the training images since the last record; `history` are the records so far. Of a read-out that
    follows training: `averaged`, N over its `samples`, and `used`, the reads of a unit and phase since the last record.
    """

    epoch: int = 0
    step: int = 0
    wrong: Int[Tensor, " member"] | int = 0
    cost: Float[Tensor, " member"] | float = 0.0
    averaged: Float[Tensor, " member"] | float = 1.0
    used: Float[Tensor, " member"] | float = 0.0
    history: list[xr.Dataset] = field(default_factory=list)
    optimiser: Optimiser | None = None


def train(
    net: Network,
    x: Float[Tensor, "n n_0"],
    y: Int[Tensor, " n"],
    *,
    epochs: int,
    batch_size: int,
    beta: float,
    iterations: int,
    learning_rates: Sequence[LayerRate],
    readout: Readout | None = None,
    seed: int | Sequence[int] = 0,
    decay: float = 0.99, bias_rate: float = 1.0, warm_up: int | None = None,
    test: Labelled | None = None, validation: Labelled | None = None, looks: int | None = None,
    estimator: Estimator = "centered", nudged_iterations: int | None = None, cold: bool = False,
    optimiser: Literal["momentum", "adam"] | Make | None = None,
    state: State | None = None,
    engine: Engine = "auto",
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Train `net` in place by stochastic gradient descent on the EP estimate.

    Members with equal `seed` see the same batches and random numbers of the read-out, so differences between their
    noise levels are paired. Training that goes on from its `state` equals training that wasn't interrupted.

    Args:
        x, y: training inputs and class numbers; a last incomplete batch of an epoch is left out.
        epochs: in all, those that `state` has behind it included. beta, iterations: nudge (S), iterations of a phase.
        learning_rates: one a layer, for all members or (member,); times `decay` after each epoch, for biases also
            times `bias_rate`.
        readout: what the learning rule reads; None reads exactly. A `Schedule` follows training.
        estimator, nudged_iterations, cold: as in `gradient`; "backpropagation" is the baseline, without a readout.
        optimiser: what is made of the estimates before the update, see `Optimiser`; None: gradient descent.
        warm_up: images over which the learning rates rise from 0; None: they begin as they are.
        test, validation: images and classes evaluated at each record.
        looks: records an epoch, at equal distances, each with `probe.layers`; None: a plain record after each epoch.
        state: brought up to date after each block of steps, before `progress` is called with its number of images.
        engine: "native" (C++), "compiled" (torch.compile), "eager", or "auto": native on a CPU, compiled on a GPU.

    Returns:
        Dataset over (epoch, member[, layer]), epochs being those finished: `train_error`, `train_cost` (before each
        update, since the last record), `test_error`, `validation_error`, `activity`, `conductance`, `diverged`; of a
        `Schedule` also `reads`, the mean number of reads N since the last record.
        Its attribute `engine` names what trained.

    Raises:
        ValueError: for an argument that makes no training, by its name, before any step.
    """
    plan = _plan(net, x, y, {"test": test, "validation": validation}, epochs, batch_size, decay, looks, seed, warm_up)
    rule = _rule(net, beta, iterations, learning_rates, bias_rate, estimator, readout, nudged_iterations, cold)
    state = state or State()
    if optimiser is not None:
        state.optimiser = state.optimiser or Optimiser(optimiser, net)
        rule = rule._replace(optimiser=state.optimiser)
    name, take_steps = choose(engine, net, readout, rule.only_torch())
    seen = estimator if estimator in NUDGES else "centered"  # what a probe would show, though nothing is nudged
    look = partial(probe.layers, net, plan.x, plan.target, batch_size, beta, iterations, seen) if looks else None
    _advance(net, plan, rule, take_steps, look, state, progress or (lambda images: None))
    history = xr.concat(state.history, "epoch", join="exact") if state.history else xr.Dataset()
    return history.assign_attrs(engine=name)


def _plan(
    net: Network, x: Tensor, y: Tensor, tests: Mapping[str, Labelled | None],
    epochs: int, batch_size: int, decay: float, looks: int | None, seed: int | Sequence[int], warm_up: int | None,
) -> Plan:  # fmt: skip
    x, y = checks.labelled(net, (x, y), ("x", "y"))
    batch_size = checks.count("batch_size", batch_size, most=len(x))
    steps = len(x) // batch_size
    times = 1 if looks is None else checks.count("looks", looks, most=steps)
    return Plan(
        x,
        one_hot(y, net.sizes[-1]).to(net.biases[0]),
        {name: checks.labelled(net, t, (f"{name}[0]", f"{name}[1]")) for name, t in tests.items() if t is not None},
        checks.count("epochs", epochs, 0),
        batch_size,
        checks.number("decay", decay, above=0.0),
        [steps * k // times for k in range(1, times + 1)],
        checks.seeds(seed, net.members),
        0 if warm_up is None else checks.count("warm_up", warm_up),
    )


def _rule(
    net: Network, beta: float, iterations: int, learning_rates: Sequence[LayerRate],
    bias_rate: float, estimator: Estimator, readout: Readout | None, nudged_iterations: int | None, cold: bool,
) -> Rule:  # fmt: skip
    layers, like = len(net.weights), net.biases[0]
    check_phases(estimator, readout, nudged_iterations, cold)
    if readout is not None:
        checks.readout(readout, net)
    beta = checks.number("beta", beta, above=0.0)
    if not isinstance(learning_rates, Sequence | Tensor | np.ndarray) or len(learning_rates) != layers:
        raise ValueError(f"learning_rates = {shown(learning_rates)}: must be {layers} rates, one for each layer")
    rates = [checks.per_member(f"learning_rates[{k}]", r, net.members, like) for k, r in enumerate(learning_rates)]
    return Rule(
        beta * torch.tensor(NUDGES.get(estimator, (0, 0))).to(like),
        checks.count("iterations", iterations),
        torch.stack(rates),
        checks.number("bias_rate", bias_rate, least=0.0),
        readout,
        nudged_iterations,
        cold,
        estimator == "backpropagation",
    )


def _advance(
    net: Network, plan: Plan, rule: Rule, take_steps: Steps, look: Callable[..., dict[str, Tensor]] | None,
    state: State, progress: Callable[[int], object],
) -> None:  # fmt: skip
    """Train from where `state` stands to the plan's end, bringing it up to date after each block of steps."""
    if not state.epoch and not state.step:
        check_minimum(net, rule.nudges)
    follows = isinstance(rule.readout, Schedule) or changes(rule.readout)
    while state.epoch < plan.epochs:
        of_epoch = rule._replace(rates=rule.rates * plan.decay**state.epoch)
        for block, end in _blocks(net, plan, rule.readout, state):
            images = plan.batch_size * (state.epoch * plan.records[-1] + end)
            readout = _followed(net, plan, block, of_epoch, state) if follows else rule.readout
            now = of_epoch._replace(readout=readout)
            wrong, cost = take_steps(net, block, now)
            state.step, state.wrong, state.cost = end, state.wrong + wrong.cpu(), state.cost + cost.cpu()
            if end in plan.records:
                seen = plan.batch_size * (end - max((k for k in plan.records if k < end), default=0))
                values: dict[str, Any] = {"train_error": state.wrong / seen, "train_cost": state.cost / seen}
                values |= probe.parameters(net)
                for name, (x, y) in plan.tests.items():
                    values[f"{name}_error"], activity = probe.evaluate(net, x, y, rule.iterations)
                    values |= {"activity": activity} if name == "test" else {}
                values |= look(now.readout, images) if look else {}
                values |= {"reads": state.used / seen} if follows else {}
                state.history.append(_record(values, state.epoch + (end / plan.records[-1] if look else 1)))
                state.wrong, state.cost, state.used = 0, 0.0, 0.0
            progress(block.rows.shape[1] * plan.batch_size)
        state.epoch, state.step = state.epoch + 1, 0


def _followed(net: Network, plan: Plan, block: Block, rule: Rule, state: State) -> Readout:
    """The read-out of a block of steps, N being that which the block begins with; its reads are counted in `state`."""
    done, steps = state.epoch * plan.records[-1] + state.step, block.rows.shape[1]
    readout: Any = at(rule.readout, plan.batch_size * done)
    batch = plan.batch_size * readout.samples
    if not isinstance(readout, Schedule):
        state.used = state.used + torch.full((net.members,), float(batch * steps), dtype=torch.float64)
        return readout
    reads = torch.as_tensor(state.averaged, dtype=torch.float64).expand(net.members)
    if isinstance(readout, Adaptive):
        if block.noise is not None and readout.measured_after(done, plan.batch_size):
            noisy = (torch.as_tensor(readout.sigma) > 0).cpu()  # exact reads are not measured, in whatever company
            state.used = state.used + 2 * batch * reads * noisy
            reads = readout.more(reads, _read_twice(net, plan, block, rule, readout.reading(reads), state))
        state.averaged = reads
    by_step = readout.reads_at([plan.batch_size * (done + k) for k in range(steps)]).double()
    state.used = state.used + batch * reads * by_step.sum()
    return readout.reading(reads) if isinstance(readout, Adaptive) else readout


def _read_twice(
    net: Network, plan: Plan, block: Block, rule: Rule, readout: Schedule, state: State
) -> list[Gradient]:  # fmt: skip
    """Two estimates of the gradient of a block's first batch, from reads of their own."""
    batch, shape = block.rows[block.stream, 0], (2, 2, plan.batch_size, sum(net.sizes[1:]))
    _, states = relaxed(net, block.x[batch], block.target[batch], rule)
    drawn = [readout.noise(shape, _generator(s, state.epoch, state.step, 1)) for s in plan.seeds]
    seen = plan.batch_size * (state.epoch * plan.records[-1] + state.step)
    noise = readout.shaped(torch.stack(drawn).to(plan.x), [seen, seen], net.sizes[1:])  # type: ignore[arg-type]
    reads = [readout.read(states, by_layer(noise[:, k], states)) for k in range(2)]
    return [net.contrast(block.x[batch], read, rule.nudges[0] - rule.nudges[1]) for read in reads]


def _blocks(net: Network, plan: Plan, readout: Readout | None, state: State) -> Iterator[tuple[Block, int]]:
    """What is left of an epoch, in blocks of steps, each with the step that it ends at.

    They end at every record, and where an adaptive schedule measures or the number of draws changes.
    """
    device, units, epoch = plan.x.device, sum(net.sizes[1:]), state.epoch
    streams = sorted(set(plan.seeds))
    stream = torch.tensor([streams.index(s) for s in plan.seeds], device=device)
    steps = plan.records[-1]
    # Steps a call: enough to pay for the call, few enough for their noise to stay small.
    of_a_draw = max(16, 2**20 // (2 * plan.batch_size * units))
    length = max(1, of_a_draw // getattr(readout, "draws", 1))
    order = torch.stack([torch.randperm(len(plan.x), generator=_generator(s, epoch)) for s in streams])
    order = order[:, : steps * plan.batch_size].unflatten(1, (-1, plan.batch_size)).to(device)
    begin, whole, number, first = state.step, None, -1, 0
    while begin < steps:
        reading = at(readout, plan.batch_size * (epoch * steps + begin))
        end = min((begin // length + 1) * length, next(record for record in plan.records if record > begin))
        if changes(readout):
            end = min(end, begin + max(1, of_a_draw // getattr(reading, "draws", 1)))
        if isinstance(readout, Adaptive) or changes(readout):
            end = next((k for k in range(begin + 1, end) if _turns(plan, readout, epoch * steps + k)), end)
        if changes(readout):  # its draws are as many as its reads, which change: new ones for each block
            generators, first = [_generator(s, epoch, begin, 2) for s in streams], begin
            whole = _noise(reading, (end - begin, 2, plan.batch_size, units), generators)
        elif begin // length != number:
            number, first = begin // length, begin // length * length
            generators = [_generator(s, epoch, number) for s in streams]
            whole = _noise(readout, (length, 2, plan.batch_size, units), generators)
        noise, seen = None, plan.batch_size * (epoch * steps + torch.arange(begin, end))
        if whole is not None:
            noise = whole[:, begin - first : end - first].to(plan.x)
            if isinstance(readout, Schedule):
                noise = readout.shaped(noise, seen.tolist(), net.sizes[1:])
        rise = ((seen + plan.batch_size).double() / max(1, plan.warm_up)).clamp(max=1).to(plan.x)
        yield Block(plan.x, plan.target, order[:, begin:end], stream, noise, rise), end
        begin = end


def _turns(plan: Plan, readout: Readout | None, steps: int) -> bool:
    """Whether reads change after so many steps."""
    if isinstance(readout, Adaptive):
        return readout.measured_after(steps, plan.batch_size)
    return at(readout, plan.batch_size * steps).samples != at(readout, plan.batch_size * (steps - 1)).samples


def _noise(
    readout: Readout | None, shape: tuple[int, ...], generators: Sequence[torch.Generator]
) -> Float[Tensor, "stream step 2 batch units"] | None:
    """What is random in the reads of some steps, for each stream."""
    drawn = [] if readout is None else [draw(readout, shape, generator) for generator in generators]
    noises = [xi for xi in drawn if xi is not None]
    return torch.stack(noises) if noises else None


def _record(values: dict[str, Tensor], epoch: int | float) -> xr.Dataset:
    """One line of the history."""
    dims, (members, layers) = ("epoch", "member", "layer"), values["conductance"].shape
    columns = {n: (dims[: 1 + v.ndim], v[None].cpu().numpy(), {"units": UNITS.get(n, "1")}) for n, v in values.items()}
    return xr.Dataset(columns, {"epoch": [epoch], "member": np.arange(members), "layer": np.arange(1, layers + 1)})


def _generator(seed: int, *place: int) -> torch.Generator:
    """The stream of one place of one seed's training: (epoch) for the data order, (epoch, block) for the noise."""
    state = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
