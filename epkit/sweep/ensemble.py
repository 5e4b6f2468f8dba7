"""Runs that are trained together: one ensemble, checkpointed while it trains, so that a kill costs a minute."""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .. import data as datasets
from ..ep.learning import NUDGES, check_minimum
from ..ep.networks import DeepResistiveNetwork
from ..ep.probe import one_thread, relative_rates
from ..ep.readout import GaussianReadout, Readout
from ..ep.schedule import RULES, Adaptive, Schedule
from ..ep.training import State, train
from ..ep.variants import VARIANTS
from ..files import StoreError
from ..messages import ParameterError, short
from ..networks.convolutional import ConvolutionalResistiveNetwork
from ..networks.hopfield import DeepHopfieldNetwork
from ..readouts import Chain, of_kind, preset
from . import store
from .identity import identity
from .parameters import Network, Point, Sweep, layer_sizes

# Seconds after which the state of an unfinished ensemble is worth a file: at most a minute is computed again.
KEEP_EVERY = 45.0
# Fields of a training's state that it counts for each member.
COUNTED = ("wrong", "cost", "averaged", "used")
# Fields of a sweep that `train` takes by the same names.
TRAINING = {"epochs", "batch_size", "beta", "iterations", "decay", "bias_rate", "estimator", "looks", "warm_up"}
TRAINING |= {"nudged_iterations", "optimiser"}
# Networks that parameters may name; the others are given to `run`.
NETWORKS: dict[str, Callable[..., Any]] = {
    "hopfield": DeepHopfieldNetwork,
    "convolutional": ConvolutionalResistiveNetwork,
}


class Physics(NamedTuple):
    """What is trained, and how it is read: what makes them, called as DeepResistiveNetwork and GaussianReadout are."""

    network: Callable[..., Any] = DeepResistiveNetwork
    readout: Callable[..., Any] = GaussianReadout

    def facts(self) -> dict[str, str]:
        """Identity of each that isn't epkit's own, as they go into hashes and stores."""
        return {part: identity(part, f) for part, f in self._asdict().items() if f is not getattr(OWN, part)}


OWN = Physics()


class Images(NamedTuple):
    """What a network is trained, tested and, if wanted, validated on: pixels (n, n_0) and class numbers (n,)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor] | None


def data(network: Network, name: str) -> Images:
    """The images that a network asks for; validated is on training images that are not trained on."""
    n, first_test = network.train_images, network.first_test_image or 0
    first, apart = network.first_validation_image or n, network.validation_images
    load = datasets.load if datasets.INFO[name].own else _loaded  # one's own is in memory, and may become another
    split = load(name, train=first + apart if apart else n, test=first_test + network.test_images)
    validation = (split.x_train[first:], split.y_train[first:]) if apart else None
    return Images(
        (split.x_train[:n], split.y_train[:n]), (split.x_test[first_test:], split.y_test[first_test:]), validation
    )


@cache
def _loaded(name: str, *, train: int, test: int) -> datasets.Split:
    """A data set of epkit's, loaded and verified once in a process."""
    return datasets.load(name, train=train, test=test)


def named(network: Network, given: Callable[..., Any]) -> Callable[..., Any]:
    """What makes the network that the parameters name, with its options; what is given where they name none."""
    if network.network is None:
        return given
    options = {} if network.relaxation_noise is None else {"noise": network.relaxation_noise}
    return partial(NETWORKS[network.network], **options)


def layer_rates(
    network: Network, name: str, device: str, make: Callable[..., Any] = DeepResistiveNetwork
) -> list[float]:
    """Learning rate of each layer at eta = 1."""
    if network.rates is not None:
        return torch.tensor(network.rates).tolist()
    make = named(network, make)
    with one_thread():
        return relative_rates(
            layer_sizes(network, name),
            *data(network, name).train,
            input_gain=network.input_gain,
            beta=network.beta,
            iterations=network.iterations,
            batch_size=network.batch_size,
            network=make,
            device=device,
        ).tolist()


@contextlib.contextmanager
def nudge_too_strong() -> Iterator[None]:
    """ParameterError where a nudged phase turns out to have no steady state, which only the network itself can tell."""
    try:
        yield
    except (ValueError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise ParameterError(f"parameters: beta: smaller ones are allowed ({short(error)})") from error


def images_a_run(network: Network) -> int:
    """Training images that one run sees, an epoch's last incomplete batch left out."""
    return network.train_images // network.batch_size * network.batch_size * network.epochs


class Task(NamedTuple):
    """Runs of a sweep to train together: they share data set, read-outs and seed, so also batches and noise."""

    sweep: Sweep
    group: Sequence[Point]
    rates: Sequence[float]  # learning rate of each layer at eta = 1
    physics: Physics
    device: str

    @property
    def images(self) -> int:
        """Training images of all runs together."""
        return images_a_run(self.sweep) * len(self.group)

    def trained(self, checkpoint: Path, progress: Callable[[int], object]) -> xr.Dataset:
        sweep, group, rates, physics, device = self
        return trained(sweep, group, rates, physics=physics, device=device, checkpoint=checkpoint, progress=progress)


def trained(
    sweep: Sweep, group: Sequence[Point], rates: Sequence[float], *,
    physics: Physics = OWN, device: str = "cpu", checkpoint: Path, progress: Callable[[int], object],
) -> xr.Dataset:  # fmt: skip
    """The history of a `Task` over (epoch, member[, layer]); its attribute `maker` names code, machine, engine.

    Args:
        checkpoint: file that the state is kept in while training, and that an interrupted call goes on from.
        progress: called with the number of images that were done, times runs.
    """
    first, images = group[0], data(sweep, group[0].dataset)
    make = VARIANTS[sweep.variant] if sweep.variant else named(sweep, physics.network)
    net = make(
        layer_sizes(sweep, first.dataset),
        input_gain=sweep.input_gain,
        members=len(group),
        seed=first.seed,
        dtype=getattr(torch, sweep.dtype),
        device=device,
    )
    with nudge_too_strong():
        check_minimum(net, sweep.beta * torch.tensor(NUDGES.get(sweep.estimator, (0.0,))))
    state, seconds = _resumed(checkpoint, net)
    begun = time.perf_counter() - seconds
    seen = state.epoch * images_a_run(sweep) // sweep.epochs + state.step * sweep.batch_size
    progress(seen * len(group))
    with _keeping(checkpoint, net, state, begun, progress) as after_block:
        history = train(
            net,
            *images.train,
            learning_rates=[rate * torch.tensor([p.learning_rate for p in group]) for rate in rates],
            readout=_readout(sweep, physics, group),
            seed=_stream(sweep, first.seed),
            test=images.test,
            validation=images.validation,
            state=state,
            progress=after_block,
            cold=bool(sweep.cold),
            **sweep.model_dump(include=TRAINING),
        )
    wall_time = np.full(len(group), (time.perf_counter() - begun) / len(group))
    return history.assign(wall_time=("member", wall_time)).assign_attrs(maker=store.maker(history.attrs["engine"]))


def _readout(sweep: Sweep, physics: Physics, group: Sequence[Point]) -> Readout | None:
    """The read-out of a group, which follows training as the sweep says; none where nothing is read.

    A function that takes a `seed` is told that of training, for a circuit of its own.
    """
    sigma, (_, _, averaging, samples, _, seed) = torch.tensor([p.sigma for p in group]), group[0]
    if sweep.estimator == "backpropagation":
        return None
    if (reading := sweep.readout) is not None and reading.preset:
        return Chain((preset(reading.preset, reading.full_scale),), samples, averaging)
    if reading is not None:
        options = reading.model_dump(exclude_none=True) | {"samples": samples, "averaging": averaging, "circuit": seed}
        return of_kind(sigma=sigma[0] if reading.kind == "converter" else sigma, **options)
    if (following := sweep.schedule) is None:
        own = {"seed": seed} if "seed" in inspect.signature(physics.readout).parameters else {}
        return physics.readout(sigma, samples, averaging, **own)
    options = following.model_dump(include={"layers", "updates"}) | {"samples": samples, "averaging": averaging}
    rule, images = following.rule, following.images
    if rule is None or images is None:
        return Schedule(sigma, **options)
    if following.bound is not None:
        return Adaptive(sigma, **options, bound=following.bound, every=images)
    return Schedule(sigma, **options, reads=RULES[rule](images))


def _stream(network: Network, seed: int) -> int:
    """What data order and noise are drawn from; a realisation of its own has a stream of its own."""
    if network.realisation is None:
        return seed
    return int(np.random.SeedSequence((seed, network.realisation)).generate_state(1, np.uint32)[0])


@contextlib.contextmanager
def _keeping(
    checkpoint: Path, net: Any, state: State, begun: float, progress: Callable[[int], object]
) -> Iterator[Callable[[int], None]]:
    """What to call after each block of steps: it keeps the state now and then, and when the process is told to stop.

    A signal stops training after the block that it arrives in, when network and state agree; a second one at once.
    """
    kept = time.perf_counter()
    told: list[signal.Signals] = []

    def after_block(images: int) -> None:
        nonlocal kept
        progress(images * net.members)
        # the moments of an optimiser are not kept: such a training begins anew
        if state.optimiser is None and (told or time.perf_counter() - kept > KEEP_EVERY):
            try:
                _keep(checkpoint, net, state, time.perf_counter() - begun)
            except StoreError as error:  # a full disk: there may be room again when the runs are done
                warnings.warn(f"{error}; training goes on", stacklevel=2)
            kept = time.perf_counter()
        if told:
            raise KeyboardInterrupt(told[0].name)

    def tell(number: int, frame: object) -> None:
        told.append(signal.Signals(number))
        signal.signal(number, handlers[signal.Signals(number)])

    here = threading.current_thread() is threading.main_thread()  # only there may handlers be set
    numbers = (signal.SIGINT, signal.SIGTERM) if here else ()
    handlers = {number: signal.signal(number, tell) for number in numbers}
    try:
        yield after_block
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _keep(checkpoint: Path, net: Any, state: State, spent: float) -> None:
    """An unfinished group's parameters and state, in a file that takes the place of the last such."""
    parameters = {
        f"{kind}_{layer}": (("member", *(f"{kind}_{layer}_{axis}" for axis in range(p.ndim - 1))), p.cpu().numpy())
        for kind, tensors in (("weight", net.weights), ("bias", net.biases))
        for layer, p in enumerate(tensors)
    }
    since_record = {name: getattr(state, name) for name in COUNTED}
    counted = {name: ("member", np.broadcast_to(np.asarray(v), net.members)) for name, v in since_record.items()}
    history = xr.concat(state.history, "epoch", join="exact") if state.history else xr.Dataset()
    place = {"finished_epochs": state.epoch, "finished_steps": state.step, "seconds": spent}
    store.write(history.assign(parameters | counted).assign_attrs(place), checkpoint, compress=False)


def _resumed(checkpoint: Path, net: Any) -> tuple[State, float]:
    """Where an interrupted call stopped, with `net` as it was then, and the seconds it took; else the beginning."""
    kept = store.read_if_sound(checkpoint)
    if kept is None or not {*COUNTED} <= {*kept}:
        return State(), 0.0
    for kind, tensors in (("weight", net.weights), ("bias", net.biases)):
        for layer, p in enumerate(tensors):
            p.copy_(torch.from_numpy(kept[f"{kind}_{layer}"].values))
    history = kept[[name for name, v in kept.data_vars.items() if "epoch" in v.dims]]
    counted: dict[str, Any] = {name: torch.from_numpy(kept[name].values) for name in COUNTED}
    state = State(
        int(kept.finished_epochs),
        int(kept.finished_steps),
        history=[history.isel(epoch=[k]) for k in range(history.sizes.get("epoch", 0))],
        **counted,
    )
    return state, float(kept.seconds)
