"""Read-outs: what the learning rule sees of the exact voltages.

The relaxation itself is deterministic; only the reading of a unit's voltage is uncertain (arXiv:2503.22810). The input
is known exactly. A read-out is anything with the two methods of `Readout`: `noise` draws what is random, `read` applies
it, so that `read` is a pure function of tensors: the same for a step of training, a gradient and a probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from . import checks
from .networks import PhaseStates

Averaging = Literal["shortcut", "explicit"]  # of N read-outs: one draw of their mean, or N draws


@runtime_checkable
class Readout(Protocol):
    """What `epkit.gradient` and `epkit.train` ask of a read-out.

    A read-out of relative noise, for example:

        class RelativeReadout:
            def __init__(self, share):
                self.share = share

            def noise(self, shape, generator):
                return torch.randn(shape, generator=generator)

            def read(self, states, noise):
                return [v * (1 + self.share * xi) for v, xi in zip(states, noise)]

    What else it may have: `fit(members, units)`, which raises ValueError where its parameters are for other members or
    layers; `draws`, of random numbers for each voltage, as an axis before the phases' in all noise, (…, draws, 2,
    batch, units); `program`, what `elementwise` says, for the C++ engine; and `at(images)`, the read-out after so many
    images of training, whose `samples` are then its reads.
    """

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor | None:
        """Random numbers of one read-out of every unit, of this shape (…, 2, batch, units), on the CPU; None: none.

        All members share them, so that differences between members are paired.
        """
        ...

    def read(self, states: PhaseStates, noise: Sequence[Tensor] | None) -> PhaseStates:
        """What is read of the voltages `states`: of each layer both phases, upper first, (member, 2, batch, n_l).

        `noise`: what `noise` drew, layer by layer, (1 or member, 2, batch, n_l).
        """
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
        sigma = checks.tensor("sigma", self.sigma)
        if bool((sigma < 0).any()):
            raise ValueError(f"sigma = {self.sigma}: a standard deviation must be finite and >= 0 (volts)")
        checks.count("samples", self.samples)
        checks.choice("averaging", self.averaging, ("shortcut", "explicit"))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"] | None:
        """Mean of `samples` standard-normal reads of every unit; None where sigma is 0."""
        if not torch.as_tensor(self.sigma).any():
            return None
        if self.averaging == "shortcut":
            return torch.randn(shape, generator=generator) / self.samples**0.5
        # Reads come a few at a time, so that many reads of a large network fit into memory.
        total, left = torch.zeros(shape), self.samples
        at_once = max(1, 2**22 // max(1, total.numel()))
        while left:
            reads = min(left, at_once)
            total += torch.randn((reads, *shape), generator=generator).sum(0)
            left -= reads
        return total / self.samples

    def read(self, states: PhaseStates, noise: Sequence[Tensor] | None) -> PhaseStates:
        """v + sigma noise."""
        if noise is None:
            return states
        scale = self.scale(states[0].shape[0]).to(states[0])[:, None, None, None]
        return [v + scale * xi for v, xi in zip(states, noise, strict=True)]

    def scale(self, members: int) -> Float[Tensor, " member"]:
        """sigma of each member (V); ValueError if it is given for another number of members."""
        sigma = torch.as_tensor(self.sigma, dtype=torch.float32).flatten()
        if sigma.numel() not in (1, members):
            raise ValueError(f"sigma has {sigma.numel()} values for {members} members: one for all, or one for each")
        return sigma.expand(members)


def changes(readout: Any) -> bool:
    """Whether a read-out has a say in what it is after so many images of training, by a method `at`."""
    return callable(getattr(readout, "at", None))


def at(readout: Any, images: int) -> Any:
    """The read-out after so many images of training: the same one, unless it `changes`."""
    return readout.at(images) if changes(readout) else readout


def draw(readout: Readout, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor | None:
    """`readout.noise` of all its draws, whose shape is checked before it goes anywhere."""
    shape = (*shape[:-3], readout.draws, *shape[-3:]) if hasattr(readout, "draws") else shape
    noise: Any = readout.noise(shape, generator)
    if noise is not None and (not isinstance(noise, Tensor) or noise.shape != shape):
        what = f"the shape {tuple(noise.shape)}" if isinstance(noise, Tensor) else f"type {type(noise).__name__}"
        raise ValueError(f"{type(readout).__name__}.noise returned {what}: must be a tensor of shape {shape}, or None")
    return noise


def by_layer(noise: Tensor | None, states: PhaseStates) -> Sequence[Tensor] | None:
    """Noise of all units (…, units), cut into layers."""
    return None if noise is None else noise.split([v.shape[-1] for v in states], -1)
