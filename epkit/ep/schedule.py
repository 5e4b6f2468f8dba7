"""Read-outs that follow training: how many reads are averaged when, and where their noise enters.

Noise that helps to leave a plateau costs accuracy later (notebook 13), and not every read does either (notebook 12). A
schedule gives the number of reads N as a function of the images seen; an adaptive schedule raises N where what a
circuit can measure says that reads drown in noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from ..messages import shown
from . import checks
from .networks import Gradient, PhaseStates
from .readout import GaussianReadout, Readout, draw

Noise = Float[Tensor, "stream step 2 batch units"]
BIASES = "biases"


@dataclass(frozen=True)
class Schedule(GaussianReadout):
    """A Gaussian read-out of which N follows training, or whose noise enters in some places only.

        Schedule(5e-5, reads=lambda images: 1 if images < 20_000 else math.inf)  # noise first, then none
        Schedule(1e-3, reads=lambda images: 1 + images / 10_000)                 # ever more reads

    Args:
        sigma, samples, averaging: of `GaussianReadout`.
        reads: N over `samples` after so many images; math.inf reads exactly. None: 1 throughout.
        layers: the layers of units, 1 … L, whose reads are noisy; None: all.
        updates: what is updated from noisy reads: layers of conductances, 1 … L, and "biases"; the others are
            updated from exact ones. None: all.

    Raises:
        ValueError: for what `GaussianReadout` refuses, for layers or updates that are none, or reads below 1 or NaN
            while training.
    """

    reads: Callable[[int], float] | None = None
    layers: Sequence[int] | None = None
    updates: Sequence[int | str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reads is not None and not callable(self.reads):
            raise ValueError(f"reads = {shown(self.reads)}: must be a function of the number of images seen, or None")
        for name, texts in (("layers", ()), ("updates", (BIASES,))):
            given = getattr(self, name)
            if given is not None and (isinstance(given, str) or not hasattr(given, "__iter__")):
                raise ValueError(f"{name} = {shown(given)}: must be a list of layers, or None for all")
            for k, layer in enumerate(() if given is None else given):
                if layer not in texts:
                    checks.count(f"{name}[{k}]", layer)

    def reads_at(self, images: Sequence[int]) -> Float[Tensor, " step"]:
        """N after so many images, over `samples`."""
        counts = [1.0 if self.reads is None else self.reads(n) for n in images]
        for n, count in zip(images, counts, strict=True):
            if not isinstance(count, Real | Tensor) or not count >= 1:
                allowed = "a number of reads must be >= 1, or infinite for exact reads"
                raise ValueError(f"reads({n}) = {shown(count)}: {allowed}")
        return torch.tensor([float(count) for count in counts])

    def shaped(self, noise: Noise, images: Sequence[int], units: Sequence[int]) -> Noise:
        """The noise of steps that begin after so many images, in the layers that have any, of N reads each.

        ValueError for layers or updates that the network, of so many units a layer, does not have.
        """
        for name in ("layers", "updates"):
            given = getattr(self, name)
            if beyond := [k for k in (() if given is None else given) if k != BIASES and k > len(units)]:
                raise ValueError(f"{name} = {beyond}: allowed are 1 to {len(units)}, the layers of the network")
        noise = noise * self.reads_at(images).rsqrt().to(noise)[:, None, None, None]
        if self.layers is not None:
            noisy = [k in self.layers for k in range(1, len(units) + 1)]
            noise = noise * torch.tensor(noisy).repeat_interleave(torch.tensor(units)).to(noise)
        return noise

    def mixed(self, noisy: Gradient, exact: Gradient) -> Gradient:
        """The estimate of which only `updates` come from noisy reads."""
        *which, biases = self.noisy(len(exact.weights))
        weights = [a if yes else b for yes, a, b in zip(which, noisy.weights, exact.weights, strict=True)]
        return Gradient(weights, noisy.biases if biases else exact.biases)

    def noisy(self, layers: int) -> list[bool]:
        """Whether the updates of the conductances of each layer, and last of the biases, come from what is read."""
        return [self.updates is None or name in self.updates for name in (*range(1, layers + 1), BIASES)]


@dataclass(frozen=True)
class Adaptive(Schedule):
    """A Gaussian read-out that doubles its N whenever the estimate of a layer's gradient drowns in noise.

    After every so many images the same batch is read twice. What the two estimates have in common is signal, half the
    power of their difference is noise: a circuit can measure both, and nothing else is used.

    Args:
        sigma, samples, averaging: of `GaussianReadout`; N begins with `samples`.
        bound: least ratio of signal to noise, of the rms over the layer's conductances for a batch.
        every: images between measurements.
        layer: of conductances, 1 … L, that is watched; the second decides the limit (`prediction`). The last where
            there are fewer.
        most: N over `samples` is not raised beyond.
    """

    bound: float = 1.0
    every: int = 1000
    layer: int = 2
    most: int = 2**20

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("bound", self.bound, above=0.0)
        for name in ("every", "layer", "most"):
            checks.count(name, getattr(self, name))

    def measured_after(self, steps: int, batch_size: int) -> bool:
        """Whether a measurement is due after so many steps."""
        return steps > 0 and steps * batch_size // self.every > (steps - 1) * batch_size // self.every

    def more(self, reads: Float[Tensor, " member"], twice: Sequence[Gradient]) -> Float[Tensor, " member"]:
        """N over `samples` of each member, raised where two estimates of one gradient say so."""
        first, second = (g.weights[min(self.layer, len(g.weights)) - 1].double() for g in twice)
        signal = (first * second).mean((1, 2)).clamp_min(0)
        noise = (first - second).square().mean((1, 2)) / 2
        drowned = signal < self.bound**2 * noise
        return torch.where(drowned.cpu(), 2 * reads, reads).clamp_max(self.most)

    def reading(self, reads: Float[Tensor, " member"]) -> Adaptive:
        """The same with so many more reads of each member."""
        return replace(self, sigma=torch.as_tensor(self.sigma) / reads.sqrt().to(torch.float32))


def until(images: int) -> Callable[[int], float]:
    """Noise during the first images, none later."""
    return lambda seen: 1.0 if seen < images else math.inf


def after(images: int) -> Callable[[int], float]:
    """No noise during the first images, then noise."""
    return lambda seen: math.inf if seen < images else 1.0


def doubling(images: int) -> Callable[[int], float]:
    """Twice as many reads after every so many images."""
    return lambda seen: 2.0 ** min(seen // images, 1000)


def growing(images: int) -> Callable[[int], float]:
    """As many more reads after every so many images as at first."""
    return lambda seen: 1 + seen / images


RULES = {rule.__name__: rule for rule in (until, after, doubling, growing)}


def estimated(
    readout: object, noisy: Callable[[PhaseStates], Gradient], read: PhaseStates, states: PhaseStates
) -> Gradient:
    """The contrast of what is read; of a schedule that spares some updates, mixed with that of the exact states."""
    estimate = noisy(read)
    if isinstance(readout, Schedule) and readout.updates is not None:
        return readout.mixed(estimate, noisy(states))
    return estimate


def drawn(
    readout: Readout, shape: tuple[int, int, int], generator: torch.Generator | None, units: Sequence[int], images: int
) -> Float[Tensor, "1 2 batch units"] | None:
    """The noise of one reading, (2, batch, units) for all members; a schedule's is that after so many images."""
    noise = draw(readout, shape, generator)
    if noise is not None and isinstance(readout, Schedule):
        noise = readout.shaped(noise[None, None], [images], units)[0, 0]
    return None if noise is None else noise[None]
