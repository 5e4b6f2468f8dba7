"""Read-out models: what the learning rule sees of the exact voltages.

The relaxation itself is deterministic; only the reading of a unit's voltage is uncertain (arXiv:2503.22810). The input
is known exactly. A read-out model is anything with the two methods of `Readout`: `noise` draws what is random and
`read` applies it, so `read` stays a pure function of tensors that can be compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Averaging = Literal["shortcut", "explicit"]  # of N read-outs: one draw of their mean, or N draws


@runtime_checkable
class Readout(Protocol):
    """What `epkit.gradient` and `epkit.train` ask of a read-out model."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """Random numbers of one read-out of every unit, drawn on the CPU in float32, member-free."""
        ...

    def scale(self, members: int) -> Float[Tensor, " member"]:
        """Standard deviation (V) that multiplies the noise of each member."""
        ...


@dataclass(frozen=True)
class GaussianReadout:
    """v + sigma xi with xi ~ N(0, 1) for every unit, sample, phase and step; `samples` such reads are averaged.

    The mean of N Gaussian reads is Gaussian with sigma/sqrt(N), so `averaging="shortcut"` draws it in one go;
    `"explicit"` draws all N reads and averages them. Same distribution, different random numbers.
    Source: arXiv:2503.22810 (sigma_act = sigma/sqrt(N)).

    Args:
        sigma: standard deviation of one read (V), a number or one a member (member,).
        samples: reads N that are averaged.
        averaging: "shortcut" or "explicit".

    Raises:
        ValueError: for sigma < 0 or not finite, samples < 1, or another averaging.
    """

    sigma: float | Float[Tensor, " member"]
    samples: int = 1
    averaging: Averaging = "shortcut"

    def __post_init__(self) -> None:
        sigma = torch.as_tensor(self.sigma, dtype=torch.float64)
        if not bool(((sigma >= 0) & sigma.isfinite()).all()):
            raise ValueError(f"sigma = {self.sigma}: a standard deviation must be finite and >= 0 (volts)")
        if int(self.samples) != self.samples or self.samples < 1:
            raise ValueError(f"samples = {self.samples}: the number of read-outs must be an integer >= 1")
        if self.averaging not in ("shortcut", "explicit"):
            raise ValueError(f"averaging = {self.averaging!r}: allowed are 'shortcut' and 'explicit'")

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"]:
        """Mean of `samples` standard-normal reads of every unit."""
        if self.averaging == "shortcut":
            return torch.randn(shape, generator=generator) / self.samples**0.5
        # Reads come a few at a time, so that many reads of a large network fit into memory.
        total, left = torch.zeros(shape), self.samples
        at_once = max(1, 2**22 // max(1, total.numel()))
        while left:
            count = min(left, at_once)
            total += torch.randn((count, *shape), generator=generator).sum(0)
            left -= count
        return total / self.samples

    def scale(self, members: int) -> Float[Tensor, " member"]:
        """sigma of each member (V); ValueError if it is given for another number of members."""
        sigma = torch.as_tensor(self.sigma, dtype=torch.float32).flatten()
        if sigma.numel() not in (1, members):
            raise ValueError(f"sigma has {sigma.numel()} values for {members} members: one for all, or one for each")
        return sigma.expand(members)
