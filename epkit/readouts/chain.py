"""Read-outs put together: what one part reads, the next one reads again; then the mean of N such reads.

A part is a read-out of its own, so each can be given to `epkit.train` alone, and a read-out written elsewhere (`noise`
and `read`) stands in a chain as ours do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..ep import checks
from ..ep.elementwise import FIRST, RANDOM, SECOND, Operation, applied
from ..ep.networks import PhaseStates
from ..ep.readout import Averaging, Readout
from ..ep.schedule import Schedule
from ..messages import shown

Generator = torch.Generator | None
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k"}


class Part:
    """One thing that electronics does to a voltage; elementwise, so that the C++ engine does it, too.

    A subclass gives `operations`, one random one at most, and `unit` if it has that; `__str__` in plain words.
    """

    # Whether a read takes a random number, and whether it is linear in voltage and number together. Where only linear
    # parts follow the first random one, the noise of the mean of N reads can be drawn in place of N noises.
    random: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        """What a read does; ValueError if the parameters are for other members or layers."""
        raise NotImplementedError

    def unit(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Random numbers of single reads, in units of the part's own scale."""
        return torch.randn(shape, generator=generator)

    def drawn(self, shape: tuple[int, ...], generator: Generator, samples: int, reads: int) -> Tensor:
        """Random numbers (…, reads, 2, batch, units) for a shape (…, 2, batch, units).

        `reads` is `samples`, one number for each, or 1: that of their mean, honestly drawn read by read.
        """
        shape = (*shape[:-3], 1, *shape[-3:])
        if reads == samples:
            return self.unit((*shape[:-4], reads, *shape[-3:]), generator)
        total, at_once, left = torch.zeros(shape), max(1, 2**22 // max(1, prod(shape))), samples
        while left:
            n = min(left, at_once)
            total += self.unit((n, *shape), generator).sum(0)
            left -= n
        return total / samples

    def noise(self, shape: tuple[int, ...], generator: Generator = None) -> Tensor | None:
        """Random numbers of one read, of this shape (…, 2, batch, units); None: it takes none."""
        return self.drawn(shape, generator, 1, 1).squeeze(-4) if self.random else None

    def read(self, states: PhaseStates, noise: Sequence[Tensor] | None) -> PhaseStates:
        """What is read of the voltages of both phases (V), layer by layer (member, 2, batch, n_l)."""
        return applied(self.operations(*_shape_of(states)), states, noise)

    def program(self, members: int, units: Sequence[int]) -> list[Operation] | None:
        """For the C++ engine: the operations, unless a subclass reads in a way of its own."""
        own = type(self).read is not Part.read
        return None if own else self.operations(members, units)

    def fit(self, members: int, units: Sequence[int]) -> None:
        """ValueError if the parameters are for other members or layers."""
        self.operations(members, units)

    def __or__(self, other: Any) -> Chain:
        return Chain((self, other))


@dataclass(frozen=True)
class Chain:
    """Parts one after the other, then the mean of N reads of the same two phases.

        Chain((Noise(5e-5), Converter(bits=13, span=(0, 1))), samples=4)
        (Noise(5e-5) | Converter(bits=13, span=(0, 1))).averaged(4)
        (Noise(5e-5) | Converter(bits=13, span=(0, 1))).averaged(lambda images: 1 if images < 20_000 else 16)

    The noise of the mean is drawn directly where that is exact: nothing but linear parts after the first random one.
    Else N reads are drawn and averaged, for a converter rounds each by itself.

    Args:
        parts: read-outs, in the order in which the voltage passes them; chains are unpacked, None is left out.
        samples: reads N of each phase that are averaged, or a function that gives N after so many images of training,
            such as those of `epkit.ep.schedule` but for infinitely many; rounded down.
        averaging: "shortcut", which is that, or "explicit": N reads always.

    Attributes:
        reads: reads that are drawn one by one, N or 1.
        draws: random numbers that a unit and phase takes.

    Raises:
        ValueError: for a part that is no read-out, samples < 1, also while training, another averaging, one chain of
            averages in another.
    """

    parts: tuple[Any, ...]
    samples: int | Callable[[int], float] = 1
    averaging: Averaging = "shortcut"

    def __post_init__(self) -> None:
        given = self.parts if isinstance(self.parts, Sequence) and not isinstance(self.parts, str) else (self.parts,)
        flat: list[Any] = []
        for part in (p for p in given if p is not None):
            if isinstance(part, Chain) and part.samples != 1:
                raise ValueError(f"parts = {shown(str(part))}: a mean must be the last thing, of the whole chain")
            flat += part.parts if isinstance(part, Chain) else [part]
        for k, part in enumerate(flat):
            if isinstance(part, Schedule):
                raise ValueError(
                    f"parts[{k}] = {shown(part)}: is of Gaussian noise alone; `samples` may follow training"
                )
            if isinstance(part, type) or not isinstance(part, Readout):
                raise ValueError(f"parts[{k}] = {shown(part)}: must be a read-out, with the methods noise and read")
            if not isinstance(part, Part) and hasattr(part, "draws"):
                raise ValueError(f"parts[{k}] = {shown(part)}: a read-out with an axis of draws can't be a part")
        object.__setattr__(self, "parts", tuple(flat))
        if not callable(self.samples):
            checks.count("samples", self.samples)
        checks.choice("averaging", self.averaging, ("shortcut", "explicit"))

    def count(self, images: int = 0) -> int:
        """N after so many images of training."""
        if not callable(self.samples):
            return self.samples
        return int(checks.number(f"samples({images})", self.samples(images), least=1.0))

    @property
    def at(self) -> Callable[[int], Chain] | None:
        """The read-out after so many images of training; None if it stays. Until asked, it is that of the beginning."""
        return (lambda images: self.averaged(self.count(images))) if callable(self.samples) else None

    @property
    def reads(self) -> int:
        noisy = self.averaging == "explicit"
        for part in self.parts:
            if not isinstance(part, Part) or (noisy and not part.linear):
                return self.count()
            noisy |= part.random
        return self.count() if self.averaging == "explicit" else 1

    @property
    def draws(self) -> int:
        return max(1, self.reads * sum(not isinstance(p, Part) or p.random for p in self.parts))

    def averaged(self, samples: int | Callable[[int], float]) -> Chain:
        return replace(self, samples=samples)

    def noise(self, shape: tuple[int, ...], generator: Generator = None) -> Tensor | None:
        """Random numbers (…, draws, 2, batch, units): those of the first part's reads, then the next one's."""
        shape, reads, parts = (*shape[:-4], *shape[-3:]), self.reads, []
        for part in self.parts:
            if not isinstance(part, Part):
                each = (part.noise(shape, generator) for _ in range(reads))
                parts.append(torch.stack([torch.zeros(shape) if xi is None else xi for xi in each], -4))
            elif part.random:
                parts.append(part.drawn(shape, generator, self.count(), reads))
        return torch.cat(parts, -4) if parts else None

    def read(self, states: PhaseStates, noise: Sequence[Tensor] | None) -> PhaseStates:
        """Each read is like one more image of the batch, until they are averaged."""
        reads, batch, taken = self.reads, states[0].shape[2], 0
        v = [s.repeat(1, 1, reads, 1) for s in states] if reads > 1 else list(states)
        for part in self.parts:
            xi = None
            if noise is not None and (not isinstance(part, Part) or part.random):
                own = (n[:, taken : taken + reads] for n in noise)
                xi, taken = [n.transpose(1, 2).flatten(2, 3) for n in own], taken + reads
            v = part.read(v, xi)
        return [s.unflatten(2, (reads, batch)).mean(2) for s in v] if reads > 1 else v

    def program(self, members: int, units: Sequence[int]) -> list[Operation] | None:
        """For the C++ engine: all parts' operations; None if one of them isn't ours, or a subclass reads otherwise."""
        if type(self).read is not Chain.read:
            return None
        listed, taken = [], 0
        for part in self.parts:
            operations = part.program(members, units) if isinstance(part, Part) else None
            if operations is None:
                return None
            listed += [o._replace(draw=taken) if o.kind in RANDOM else o for o in operations]
            taken += self.reads * part.random
        return listed

    def fit(self, members: int, units: Sequence[int]) -> None:
        """ValueError if a part's parameters are for other members or layers."""
        for part in self.parts:
            if callable(fit := getattr(part, "fit", None)):
                fit(members, units)
            elif callable(scale := getattr(part, "scale", None)):
                scale(members)

    def __or__(self, other: Any) -> Chain:
        return Chain((self, other))

    def __str__(self) -> str:
        many = "as many reads as training asks for" if callable(self.samples) else f"{self.samples} reads"
        mean = f"mean of {many}" if self.samples != 1 else ""
        return " | ".join([*map(str, self.parts), *filter(None, [mean])]) or "exact"


@dataclass(frozen=True)
class Differential(Part):
    """The difference of the phases is formed as a voltage and converted in a range of its own, their mean coarsely.

    Without it both phases are converted, then subtracted. Float32 carries a difference to 1e-7 of the voltages: for a
    finer converter the network must be in float64. Source: correlated double sampling, as image sensors do it.

    Args:
        difference, mean: what upper - lower and (upper + lower)/2 go through, of parts without noise; None: exact.
    """

    linear: ClassVar[bool] = False

    difference: Any = None
    mean: Any = None

    def __post_init__(self) -> None:
        for name in ("difference", "mean"):
            given = getattr(self, name)
            averaged = isinstance(given, Chain) and given.samples != 1
            for part in given.parts if isinstance(given, Chain) else () if given is None else (given,):
                if averaged or not isinstance(part, Part) or part.random or isinstance(part, Differential):
                    what = "must be of parts without noise or a mean, which stand before and after it"
                    raise ValueError(f"{name} = {shown(str(given))}: {what}")

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        listed = [Operation("split", torch.zeros(0))]
        for side, part in ((FIRST, self.difference), (SECOND, self.mean)):
            listed += [o._replace(side=side) for p in Chain((part,)).parts for o in p.operations(members, units)]
        return [*listed, Operation("join", torch.zeros(0))]

    def __str__(self) -> str:
        return f"difference [{Chain((self.difference,))}], mean [{Chain((self.mean,))}]"


def quantity(value: Any, unit: str) -> str:
    """A number, or the range of one a member, with a unit and its prefix: 50 µV, 3.4 mV, 12 kV."""
    values = torch.as_tensor(value, dtype=torch.float64).flatten()
    if values.numel() > 1:
        return f"{quantity(values.min(), unit)} to {quantity(values.max(), unit)}, one a member"
    number = float(values)
    power = 3 * (int(f"{number:.3e}".partition("e")[2]) // 3) if number else 0
    power = min(max(power, min(PREFIXES)), max(PREFIXES))
    return f"{number / 10.0**power:.4g} {PREFIXES[power]}{unit}"


def _shape_of(states: PhaseStates) -> tuple[int, list[int]]:
    return states[0].shape[0], [v.shape[-1] for v in states]
