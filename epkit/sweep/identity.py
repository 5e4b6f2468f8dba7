"""What names a network or a read-out that isn't epkit's: its source, and the values that its source doesn't tell."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..files import digest
from ..messages import short

PLAIN = (str, int, float, Path, np.generic, tuple, list, dict, Tensor, np.ndarray)


def identity(part: str, made_by: Callable[..., Any]) -> str:
    """Name and hashes of what makes a network or a read-out, as they go into a run's hash.

    Raises:
        ValueError: where its source can't be read, or a value that it was made with can't be told in full.
    """
    try:
        source = inspect.getsource(made_by)
    except (OSError, TypeError):
        raise ValueError(
            f"{part} = {made_by!r}: its source can't be read, and a run is named by it: define it in a file or a cell"
        ) from None
    values = _values(made_by)
    more = f", values sha256 {digest(_told(part, values))[:12]}" if values else ""
    return f"{made_by.__qualname__}, source sha256 {digest(source)[:12]}{more}"


def _values(made_by: Any) -> dict[str, Any]:
    """What a function works with beside its arguments: two functions made in one place differ in nothing else."""
    if not inspect.isroutine(made_by):
        return {}
    function: Any = getattr(made_by, "__func__", made_by)
    seen = inspect.getclosurevars(made_by)
    plain = {name: v for name, v in seen.globals.items() if isinstance(v, PLAIN) or dataclasses.is_dataclass(v)}
    own = {"self": getattr(made_by, "__self__", None), "defaults": function.__defaults__}
    known: dict[str, Any] = {**plain, **own, "keywords": function.__kwdefaults__, **seen.nonlocals}
    return {name: v for name, v in known.items() if v is not None and not isinstance(v, type)}


def _told(part: str, value: Any) -> str:
    """A value in full and the same in every process: arrays by their content, functions by their source."""
    if isinstance(value, Tensor | np.ndarray):
        array = np.ascontiguousarray(value.cpu().numpy() if isinstance(value, Tensor) else value)
        return f"{array.dtype} {array.shape} {digest(array.tobytes().hex())}"
    if isinstance(value, tuple | list):
        return f"({', '.join(_told(part, v) for v in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_told(part, value[k])}' for k in sorted(value, key=str))}}}"
    if isinstance(value, type) or inspect.isroutine(value):
        return identity(part, value)
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__qualname__}{_told(part, held)}"
    if value is None or isinstance(value, PLAIN):
        return repr(value)
    what = short(type(value).__name__)
    raise ValueError(
        f"{part}: it is made with a {what}, and a run is named by all that it is made with: use plain values"
    )
