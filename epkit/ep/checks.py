"""What the public calls are given: taken as tensors, or refused by name before any work.

Each function returns its argument in the form that the code works with. Raises ValueError: `name = value: what is
allowed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..messages import shown

if TYPE_CHECKING:
    from .networks import Network

LARGEST = 2**63 - 1  # integer that torch takes


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An integer from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name} = {shown(value)}: must be {allowed}")
    return int(value)


def number(
    name: str, value: Any, least: float | None = None, above: float | None = None, most: float = inf
) -> float:  # fmt: skip
    """A finite number, >= `least` or > `above`, and at most `most`."""
    real = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value) and value <= most
    if not real or (least is not None and value < least) or (above is not None and value <= above):
        bound = "" if least is above is None else f" >= {least:g}" if least is not None else f" > {above:g}"
        bound += "" if most == inf else f", at most {most:g}"
        raise ValueError(f"{name} = {shown(value)}: must be a finite number{bound}")
    return float(value)


def file(name: str, value: Any) -> Path:
    """A file that is there."""
    if not isinstance(value, str | Path) or "\0" in str(value) or not Path(value).is_file():
        raise ValueError(f"{name} = {shown(value)}: must be the path of a file that is there")
    return Path(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} = {shown(value)}: allowed are {', '.join(map(repr, allowed))}")


def within(name: str, values: Tensor, count: int, what: str = "numbers", whose: str = "") -> None:
    """Integers from 0 to count - 1."""
    least, most = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
    if least < 0 or most >= count:
        raise ValueError(f"{name} holds {what} from {least} to {most}: allowed are 0 to {count - 1}{whose}")


def sizes(value: Any) -> tuple[int, ...]:
    """Units per layer, two layers at least."""
    units = [] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    if len(units) < 2:
        raise ValueError(f"sizes = {shown(value)}: must be the units of two layers or more")
    return tuple(count(f"sizes[{k}]", n) for k, n in enumerate(units))


def seeds(value: Any, members: int) -> tuple[int, ...]:
    """A seed for each member: an integer is shared, a sequence has `members` of them."""
    if isinstance(value, Integral):
        return (count("seed", value, 0, LARGEST),) * members
    values = list(value) if hasattr(value, "__iter__") else [value]
    if len(values) != members:
        raise ValueError(f"seed has {len(values)} values for {members} members: one for all, or one for each")
    return tuple(count(f"seed[{k}]", s, 0, LARGEST) for k, s in enumerate(values))


def device(value: Any) -> torch.device:
    """A device that this machine has."""
    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(f"device = {shown(value)}: this machine's torch can't use it ({shown(str(error))})") from None
    return torch.device(value)


def dtype(value: Any) -> torch.dtype:
    """Of a network's tensors."""
    if value not in (torch.float32, torch.float64):
        raise ValueError(f"dtype = {shown(value)}: allowed are torch.float32 and torch.float64")
    return value


def tensor(name: str, value: Any) -> Tensor:
    """A tensor of finite real numbers, from one or from an array."""
    try:
        values = torch.as_tensor(np.asarray(value) if isinstance(value, Sequence) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} = {shown(value)}: must be a tensor or an array of numbers") from None
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} is of type {values.dtype}: must hold real numbers")
    # a sum is one fast pass, and finite unless something isn't, or overflows
    if values.is_floating_point() and not values.sum().isfinite() and not values.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values: all must be finite")
    return values


def images(net: Network, value: Any, name: str = "x") -> Float[Tensor, "*member batch n_0"]:
    """Inputs of a network, in its type, on its device."""
    x, like = tensor(name, value), net.biases[0]
    if x.ndim not in (2, 3) or x.shape[-1] != net.sizes[0] or (x.ndim == 3 and len(x) not in (1, net.members)):
        shapes = f"(batch, {net.sizes[0]}) or ({net.members}, batch, {net.sizes[0]})"
        raise ValueError(f"{name} has the shape {tuple(x.shape)}: must be {shapes}")
    if not x.shape[-2]:
        raise ValueError(f"{name} has the shape {tuple(x.shape)}: at least one image is needed")
    return x.to(like)


def targets(net: Network, value: Any, batch: int, name: str = "target") -> Float[Tensor, "*member batch n_L"]:
    """Desired outputs (V) of `batch` images."""
    target, shape = tensor(name, value), (batch, net.sizes[-1])
    alike = target.ndim == 2 or (target.ndim == 3 and len(target) in (1, net.members))
    if not alike or target.shape[-2:] != shape:
        raise ValueError(f"{name} has the shape {tuple(target.shape)}: must be {shape}, one-hot")
    return target.to(net.biases[0])


def names_classes(target: Tensor, name: str = "target") -> None:
    """Desired outputs of which one is unlike the others."""
    if target.shape[-1] > 1 and bool((target == target[..., :1]).all()):
        raise ValueError(f"{name}: all outputs of every image are equal, which names no class: must be one-hot")


def nudge(net: Network, target: Any, beta: Any, batch: int) -> tuple[Tensor | None, float]:
    """Desired outputs and strength of a nudged phase, or neither of them."""
    if (target is None) != (beta == 0.0):
        raise ValueError(f"beta = {beta}: a nudged phase takes a target and a beta other than 0, a free phase neither")
    return (None, 0.0) if target is None else (targets(net, target, batch), number("beta", beta))


def classes(net: Network, value: Any, images: int, name: str = "y") -> Int[Tensor, " n"]:
    """Class numbers of `images` images."""
    y = tensor(name, value)
    if y.is_floating_point():
        raise ValueError(f"{name} is of type {y.dtype}: class numbers must be integers")
    if y.shape != (images,):
        raise ValueError(f"{name} has the shape {tuple(y.shape)}: must be ({images},), a class number an image")
    within(name, y, net.sizes[-1], "class numbers", ", the network's outputs")
    return y.long().to(net.biases[0].device)


def labelled(net: Network, pair: Any, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """Images (n, n_0) and their class numbers (n,)."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{names[0].partition('[')[0]} = {shown(pair)}: must be a pair (images, class numbers)")
    x = tensor(names[0], pair[0])
    if x.ndim != 2:
        raise ValueError(f"{names[0]} has the shape {tuple(x.shape)}: must be (images, {net.sizes[0]})")
    return images(net, x, names[0]), classes(net, pair[1], len(x), names[1])


def per_member(name: str, value: Any, members: int, like: Tensor) -> Float[Tensor, " member"]:
    """A finite number >= 0 for each member: one for all, or (member,)."""
    values = tensor(name, value).to(like)
    if values.ndim > 1 or values.numel() not in (1, members) or bool((values < 0).any()):
        raise ValueError(f"{name} = {shown(value)}: must be >= 0, one number or ({members},), one for each member")
    return values.flatten().expand(members)


def readout(value: Any, net: Network) -> None:
    """Something with the methods `noise` and `read`, and with values for this network's members and layers."""
    for method in ("noise", "read"):
        if not callable(getattr(value, method, None)):
            raise ValueError(f"readout = {shown(value)}: must have the methods noise and read, as GaussianReadout has")
    if callable(scale := getattr(value, "scale", None)):
        scale(net.members)
    if callable(fit := getattr(value, "fit", None)):
        fit(net.members, net.sizes[1:])
