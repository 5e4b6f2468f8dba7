"""The parts that a read-out is put together from, each with its physical parameters, their units and its source.

A part that is absent, or a parameter that is None, is no part at all; 0 is a part of no effect. A standard deviation is
a number or one a member (member,), so that members of an ensemble can differ in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, isfinite, log2
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.special import sici
from torch import Tensor

from ..ep import checks
from ..ep.elementwise import Operation
from ..messages import short, shown
from .chain import Generator, Part, quantity

BOLTZMANN = 1.380649e-23  # J/K, exact in the SI of 2019


class _Added(Part):
    """Noise that adds to the voltage: the parameter named `size` says how much of the unit noise (V)."""

    random: ClassVar[bool] = True
    size: ClassVar[str] = "sigma"

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        return [Operation("add", _per_member(self.size, getattr(self, self.size), members))]


@dataclass(frozen=True)
class Noise(_Added):
    """White Gaussian noise of every read; the mean of N has sigma/sqrt(N). The same as `GaussianReadout`.

    Args:
        sigma: standard deviation of a read (V), >= 0.
        correlation: share rho of the variance that reads of one unit in one phase have in common, 0 to 1: the mean of
            N has the variance sigma^2 (rho + (1 - rho)/N).
    """

    sigma: Any
    correlation: float | None = None

    def __post_init__(self) -> None:
        _per_member("sigma", self.sigma)
        if self.correlation is not None and checks.number("correlation", self.correlation, least=0.0) > 1:
            raise ValueError(f"correlation = {self.correlation}: must be a share, from 0 to 1")

    def drawn(self, shape: tuple[int, ...], generator: Generator, samples: int, reads: int) -> Tensor:
        rho, shape = self.correlation or 0.0, (*shape[:-3], reads, *shape[-3:])
        if reads < samples:
            return self.unit(shape, generator) * (rho + (1 - rho) / samples) ** 0.5
        own = self.unit(shape, generator)
        if not rho:
            return own
        common = self.unit((*shape[:-4], 1, *shape[-3:]), generator)
        return rho**0.5 * common + (1 - rho) ** 0.5 * own

    def __str__(self) -> str:
        alike = "" if self.correlation is None else f", correlation {self.correlation:g}"
        return f"noise {quantity(self.sigma, 'V')}{alike}"


def thermal(capacitance: float, temperature: float = 300.0) -> Noise:
    """Noise of a voltage sampled on a capacitance (F) at a temperature (K): sqrt(kT/C), 50 µV for 1.66 pF at 300 K."""
    energy = BOLTZMANN * checks.number("temperature", temperature, least=0.0)
    return Noise((energy / checks.number("capacitance", capacitance, above=0.0)) ** 0.5)


@dataclass(frozen=True)
class RelativeNoise(Part):
    """Noise in proportion to what is read, v (1 + share xi), as of a gain that fluctuates.

    Args:
        share: standard deviation of the gain, >= 0.
    """

    random: ClassVar[bool] = True
    linear: ClassVar[bool] = False  # behind other noise the product of two is no Gaussian

    share: Any

    def __post_init__(self) -> None:
        _per_member("share", self.share)

    def drawn(self, shape: tuple[int, ...], generator: Generator, samples: int, reads: int) -> Tensor:
        return self.unit((*shape[:-3], reads, *shape[-3:]), generator) * (reads / samples) ** 0.5

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        return [Operation("multiply", _per_member("share", self.share, members))]

    def __str__(self) -> str:
        return f"relative noise {quantity(100 * torch.as_tensor(self.share), '%')}"


@dataclass(frozen=True)
class HeavyTails(_Added):
    """Noise of Student's t distribution, scaled to a given rms: outliers that no Gaussian has.

    Drawn by the polar method of R. W. Bailey, Math. Comp. 62 (1994) 779; the one draw in 2^24 that would lie beyond
    some 2^(24/freedom) sigma is cut off. The mean of N has the rms sigma/sqrt(N), and its tails go but slowly.

    Args:
        sigma: rms of a read (V), >= 0.
        freedom: degrees of freedom, > 2, at most 1e9; about 3 for popcorn noise, many for a Gaussian.
    """

    sigma: Any
    freedom: float = 3.0

    def __post_init__(self) -> None:
        _per_member("sigma", self.sigma)
        checks.number("freedom", self.freedom, above=2.0, most=1e9)

    def unit(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        depth = torch.rand(shape, generator=generator).neg_().log1p_()  # log of the method's first uniform number
        radius = depth.mul_(-2 / self.freedom).expm1_().mul_(self.freedom - 2).sqrt_()
        return radius.mul_(torch.rand(shape, generator=generator).mul_(2 * torch.pi).cos_())

    def __str__(self) -> str:
        return f"heavy tails {quantity(self.sigma, 'V')} rms, {self.freedom:g} degrees of freedom"


@dataclass(frozen=True)
class Drift(_Added):
    """A reading that creeps: the lower phase is read later than the upper one, and each unit has crept by its own rate.

    All reads of a phase are off by the same, so averaging is of no use.

    Args:
        rate: standard deviation over units of the rate of drift (V/s), >= 0.
        gap: time between the two phases (s).
    """

    size: ClassVar[str] = "rate"

    rate: Any
    gap: float

    def __post_init__(self) -> None:
        _per_member("rate", self.rate)
        checks.number("gap", self.gap, least=0.0)

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        return [o._replace(values=self.gap * o.values) for o in super().operations(members, units)]

    def drawn(self, shape: tuple[int, ...], generator: Generator, samples: int, reads: int) -> Tensor:
        xi = self.unit((*shape[:-3], 1, 1, *shape[-2:]), generator)
        return (xi * torch.tensor([0.0, 1.0])[:, None, None]).repeat_interleave(reads, -4)

    def __str__(self) -> str:
        return f"drift {quantity(self.rate, 'V/s')} over {quantity(self.gap, 's')}"


@dataclass(frozen=True)
class Flicker(_Added):
    """1/f noise: Gaussian, of the power density density^2/f between two frequencies, new in each training step.

    Reads close in time are off by nearly the same: what falls by averaging is little, what cancels in the difference of
    the phases is much. Covariance of two reads at distance t: density^2 (Ci(2 pi f_high t) - Ci(2 pi f_low t)).

    Args:
        density: at 1 Hz (V/sqrt(Hz)), >= 0: the sd of a read over sqrt(ln(f_high/f_low)).
        gap: time from the last read of the upper phase to the first of the lower (s), > 0.
        interval: time between reads (s), > 0; f_high is half its inverse.
        longest: 1/f_low (s): since when the offset has been known, the last calibration; > 2 interval.
    """

    size: ClassVar[str] = "density"

    density: Any
    gap: float
    interval: float
    longest: float = 1.0

    def __post_init__(self) -> None:
        _per_member("density", self.density)
        for name in ("gap", "interval"):
            checks.number(name, getattr(self, name), above=0.0)
        checks.number("longest", self.longest, above=2 * self.interval)

    def covariance(self, samples: int) -> np.ndarray[Any, Any]:
        """Of N reads of the upper phase, then N of the lower, over density^2."""
        train = np.arange(samples) * self.interval
        time = np.concatenate([train, train[-1] + self.gap + train])
        distance = np.abs(time[:, None] - time)
        high, low = 0.5 / self.interval, 1 / self.longest
        safe = np.where(distance == 0, 1.0, 2 * np.pi * distance)
        return np.where(distance == 0, np.log(high / low), sici(high * safe)[1] - sici(low * safe)[1])

    def drawn(self, shape: tuple[int, ...], generator: Generator, samples: int, reads: int) -> Tensor:
        covariance = self.covariance(samples)
        if reads < samples:
            covariance = covariance.reshape(2, samples, 2, samples).mean((1, 3))
        values, vectors = np.linalg.eigh(covariance)
        factor = torch.from_numpy(vectors * np.sqrt(values.clip(0))).float().reshape(2, reads, 2 * reads)
        xi = self.unit((*shape[:-3], 2 * reads, *shape[-2:]), generator)
        return torch.einsum("prk,...kbn->...rpbn", factor, xi)

    def __str__(self) -> str:
        times = f"phases {quantity(self.gap, 's')} and reads {quantity(self.interval, 's')} apart"
        return f"1/f noise {quantity(self.density, 'V/√Hz')} at 1 Hz, {times}, since {quantity(self.longest, 's')}"


@dataclass(frozen=True)
class Measured(_Added):
    """Noise as measured: of repeated reads of nodes held still, deviations from the node's mean are drawn again.

    What is common to all units at one time, and how a read depends on the one before, is lost.

    Args:
        path: a CSV file of reads (V), a column a node, with or without a line of names; two reads of a node at least.
        factor: what the deviations are multiplied by, for another amplification: a number, or one a member.

    Attributes:
        deviations: all nodes' (V), of the variance that N - 1 in the denominator gives.
    """

    size: ClassVar[str] = "factor"

    path: str | Path
    factor: Any = 1.0
    deviations: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _per_member("factor", self.factor)
        object.__setattr__(self, "deviations", torch.from_numpy(_deviations(self.path)).float())

    def unit(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self.deviations[torch.randint(len(self.deviations), shape, generator=generator)]

    def __str__(self) -> str:
        rms = quantity(self.deviations.square().mean().sqrt() * torch.as_tensor(self.factor), "V")
        return f"measured noise {rms} rms, {len(self.deviations)} reads of {Path(self.path).name}"


@dataclass(frozen=True)
class Mismatch(Part):
    """Offset and gain of each unit's reading, drawn once and fixed for the whole training, both phases alike.

    Args:
        offset: standard deviation over units (V), >= 0; None: none.
        gain: standard deviation of the gain around 1, >= 0; None: none.
        seed: which circuit; one for all members, or a sequence of one a member.
    """

    offset: Any = None
    gain: Any = None
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        for name in ("offset", "gain"):
            if getattr(self, name) is not None:
                _per_member(name, getattr(self, name))
        checks.seeds(self.seed, len(self.seed) if isinstance(self.seed, Sequence) else 1)

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        drawn = _circuits(checks.seeds(self.seed, members), sum(units))
        named = (("gain", self.gain), ("offset", self.offset))
        sd = torch.stack([_per_member(name, 0.0 if s is None else s, members) for name, s in named])
        values = drawn * sd[:, :, None]
        return [Operation("affine", values + torch.tensor([1.0, 0.0])[:, None, None])]

    def __str__(self) -> str:
        offset = [] if self.offset is None else [f"offset {quantity(self.offset, 'V')}"]
        gain = [] if self.gain is None else [f"gain {quantity(100 * torch.as_tensor(self.gain), '%')}"]
        return f"mismatch {', '.join([*offset, *gain]) or 'none'} (seed {self.seed})"


@dataclass(frozen=True)
class Converter(Part):
    """An analog-to-digital converter: rounds to the nearest of 2^bits codes and saturates at the first and the last.

    Code k stands for low + k LSB, with LSB = (high - low)/2^bits, so that 0 V is a code of a symmetric span. Averaging
    is of use only if what it rounds is noisy (by half an LSB or more: dither).

    Args:
        bits: of the codes, 1 to 24; None: as many as the LSB asks for.
        span: low and high (V) of all layers, or one such pair a layer; None: ±2^(bits - 1) LSB, without bits unlimited.
        lsb: one step (V), > 0; None: from bits and span. Two of bits, span and lsb, or lsb alone.
    """

    linear: ClassVar[bool] = False

    bits: int | None = None
    span: Any = None
    lsb: float | None = None

    def __post_init__(self) -> None:
        if self.bits is not None:
            checks.count("bits", self.bits, 1, 24)
        if self.lsb is not None:
            checks.number("lsb", self.lsb, above=0.0)
        given = (self.bits is not None, self.span is not None, self.lsb is not None)
        if sum(given) != 2 and given != (False, False, True):
            raise ValueError(f"bits = {self.bits}, span = {shown(self.span)}, lsb = {self.lsb}: give two, or lsb alone")
        for low, high in self.spans:
            if self.span is not None and self.lsb is not None and not 2 * self.lsb <= high - low:
                raise ValueError(f"lsb = {self.lsb}: must be at most half of the span, {shown(self.span)}")
            if not low < high:
                raise ValueError(f"span = {shown(self.span)}: must be low < high (V), or such a pair a layer")

    @property
    def spans(self) -> list[tuple[float, float]]:
        """Low and high of each layer (V), or of all."""
        if self.span is None:
            half = inf if self.bits is None else 0.5 * float(self.lsb or 0) * 2**self.bits
            return [(-half, half)]
        spans = checks.tensor("span", self.span).double()
        if spans.shape[-1:] != (2,) or spans.ndim > 2:
            raise ValueError(f"span = {shown(self.span)}: must be (low, high) in V, or such a pair a layer")
        return [(float(low), float(high)) for low, high in spans.reshape(-1, 2)]

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        spans = self.spans
        if len(spans) not in (1, len(units)):
            raise ValueError(f"span has {len(spans)} pairs for {len(units)} layers: one for all, or one for each")
        rows = []
        for low, high in spans * (len(units) // len(spans)):
            if not isfinite(low):
                rows.append((self.lsb, 0.0, -inf, inf))
                continue
            lsb = self.lsb or (high - low) / 2 ** (self.bits or 1)
            rows.append((lsb, low, 0.0, round((high - low) / lsb) - 1.0))
        return [Operation("round", torch.tensor(rows, dtype=torch.float64))]

    def __str__(self) -> str:
        low, high = self.spans[0]
        one = len(self.spans) == 1
        lsb = self.lsb or (high - low) / 2 ** (self.bits or 1)
        steps = f"{self.bits} bits" if self.bits else "steps"
        if self.bits is None and isfinite(low):
            steps = f"{log2((high - low) / lsb):.3g} bits"
        where = f"{low:g} to {high:g} V" if one else f"a span a layer, {low:g} to {high:g} V first"
        return f"converter {steps} of {quantity(lsb, 'V')}" + (f", {where}" if isfinite(low) else "")


@dataclass(frozen=True)
class Comparator(Part):
    """One bit: +level above the threshold, else -level. Its offset is a `Mismatch` before it.

    With noise before it, the mean of N bits grows with the voltage; without, averaging is of no use. After a
    `Differential` it tells the sign of what the nudge moves.

    Args:
        level: what a bit stands for (V), > 0.
        threshold: (V).
    """

    linear: ClassVar[bool] = False

    level: float
    threshold: float = 0.0

    def __post_init__(self) -> None:
        checks.number("level", self.level, above=0.0)
        checks.number("threshold", self.threshold)

    def operations(self, members: int, units: Sequence[int]) -> list[Operation]:
        return [Operation("sign", torch.tensor([[self.level, self.threshold]] * len(units), dtype=torch.float64))]

    def __str__(self) -> str:
        return f"comparator ±{quantity(self.level, 'V')} at {quantity(self.threshold, 'V')}"


def _per_member(name: str, value: Any, members: int | None = None) -> Tensor:
    """A number >= 0 for each member, (member,), or before their number is known as many as there are."""
    count = checks.tensor(name, value).numel() if members is None else members
    return checks.per_member(name, value, count, torch.zeros(0, dtype=torch.float64))


@lru_cache(maxsize=8)
def _circuits(seeds: tuple[int, ...], units: int) -> Tensor:
    """Standard-normal numbers of each unit's gain and offset, (2, member, unit)."""
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(2, units, generator=g, dtype=torch.float64) for g in generators], 1)


def _deviations(path: str | Path) -> np.ndarray[Any, Any]:
    """Every read of a CSV file minus its column's mean, for columns of n times sqrt(n/(n - 1)) (V)."""
    path = checks.file("path", path)
    try:
        table = pd.read_csv(path, header=None)
        if table.iloc[0].map(lambda cell: isinstance(cell, str)).any():  # names
            table = pd.read_csv(path)
        reads = table.to_numpy(float)
    except (OSError, ValueError) as error:
        raise ValueError(f"path = {shown(str(path))}: must be a CSV file of reads in V ({short(error)})") from None
    count = np.isfinite(reads).sum(0)
    if not reads.size or count.min() < 2 or np.isinf(reads).any():
        raise ValueError(f"path = {shown(str(path))}: must hold numbers (V), two reads of each node or more")
    deviations = (reads - np.nanmean(reads, 0)) * np.sqrt(count / (count - 1))
    return deviations[np.isfinite(deviations)]
